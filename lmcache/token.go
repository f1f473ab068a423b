package lmcache

import "strconv"

// Token is a token id in a command: any integer that MessagePack carries, from -2^63
// to 2^64-1. Models have none above 2^32, but a controller passes on what it is given.
//
// The hash takes []int64 instead: it reduces larger ids first, and is in a hurry.
type Token struct {
	bits uint64
	over bool // bits stand for themselves: 2^63 to 2^64-1
}

// TokenOf returns v as a Token.
func TokenOf(v int64) Token { return Token{bits: uint64(v)} }

// LargeTokenOf returns v as a Token.
func LargeTokenOf(v uint64) Token { return Token{bits: v, over: v > 1<<63-1} }

// TokensOf returns a list of them.
func TokensOf(ids ...int64) []Token {
	out := make([]Token, len(ids))
	for i, v := range ids {
		out[i] = TokenOf(v)
	}
	return out
}

// Int64 returns the id, and false when it is above 2^63-1.
func (t Token) Int64() (int64, bool) { return int64(t.bits), !t.over }

// Equal reports that both are the same integer.
func (t Token) Equal(u Token) bool { return t == u }

func (t Token) String() string {
	if t.over {
		return strconv.FormatUint(t.bits, 10)
	}
	return strconv.FormatInt(int64(t.bits), 10)
}

// Append adds the token's MessagePack form, which no other token has.
func (t Token) Append(dst []byte) []byte {
	if t.over {
		return appendUint(dst, t.bits)
	}
	return appendInt(dst, int64(t.bits))
}

func (r *reader) tokens() []Token {
	n := r.arrayHeader()
	if n == 0 {
		return nil
	}
	out := make([]Token, n)
	for i := range out {
		bits, over := r.number()
		if r.err != nil {
			r.err.within(index(i))
			return nil
		}
		out[i] = Token{bits, over}
	}
	return out
}

func appendTokens(dst []byte, tokens []Token) []byte {
	dst = appendArrayHeader(dst, len(tokens))
	for _, t := range tokens {
		dst = t.Append(dst)
	}
	return dst
}
