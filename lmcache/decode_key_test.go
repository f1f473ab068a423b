package lmcache

import (
	"strings"
	"testing"
)

func TestParseKey(t *testing.T) {
	const digest = "5f05d8e4a1b2c3d400112233445566778899aabbccddeeff0011223344556677"
	tests := []struct {
		name, text string
		want       Key
		signs      Signs
		bad        bool
	}{
		{name: "hash alone", text: "5f05d8e4a1b2c3d4", want: 0x5f05d8e4a1b2c3d4},
		{name: "no padding", text: "a", want: 10},
		{name: "above int64", text: "ffffffffffffffff", want: 0xffffffffffffffff, signs: SignUnsigned},
		{name: "negative", text: "-1", want: 0xffffffffffffffff, signs: SignNegative},
		{name: "least", text: "-8000000000000000", want: 1 << 63, signs: SignNegative},
		{name: "below least", text: "-8000000000000001", bad: true},
		{name: "decimal", text: "6847123751949154252", want: 6847123751949154252},
		{name: "decimal negative", text: "-782556766413655621", want: Key(1<<64 - 782556766413655621), signs: SignNegative},
		{name: "decimal above 64 bits", text: "18446744073709551616", bad: true},
		{name: "17 hex digits", text: "5f05d8e4a1b2c3d4a", bad: true},
		{name: "whole digest", text: digest, want: 0x5f05d8e4a1b2c3d4, signs: SignBin},
		{name: "digest of 16 bytes", text: digest[:32], want: 0x5f05d8e4a1b2c3d4, signs: SignBin},
		{name: "digest of 15 bytes", text: digest[:30], bad: true},
		{name: "up to 0.3.9", text: "vllm@model@1@0@5f05d8e4a1b2c3d4", want: 0x5f05d8e4a1b2c3d4},
		{name: "with format and layer", text: "vllm@model@1@0@123@5", want: 0x123},
		{name: "without format, with dtype", text: "org/model@8@3@-5f@bfloat16", want: Key(1<<64 - 0x5f), signs: SignNegative},
		{name: "dtype and layer", text: "model@8@3@5f@fp8_e4m3fn@31", want: 0x5f},
		{name: "dtype and tags", text: "model@8@3@5f@half@a%b@c%d", want: 0x5f},
		{name: "tags alone", text: "vllm@model@1@0@5f@a%b", want: 0x5f},
		{name: "model with at sign", text: "vllm@we@ird@1@0@5f", want: 0x5f},
		{name: "no model", text: "1@0@5f", bad: true},
		{name: "no rank", text: "model@0@5f", bad: true},
		{name: "rank no number", text: "model@1@x@5f", bad: true},
		{name: "no hash", text: "model@1@0@", bad: true},
		{name: "rest unknown", text: "model@1@0@5f@Half", bad: true},
		{name: "empty", text: "", bad: true},
		{name: "sign alone", text: "-", bad: true},
		{name: "two signs", text: "--5", bad: true},
		{name: "plus", text: "+5", bad: true},
		{name: "underscore", text: "1_0", bad: true},
		{name: "prefix", text: "0x5f", bad: true},
		{name: "no hex", text: "xyz", bad: true},
		{name: "too long", text: "vllm@" + strings.Repeat("m", maxKeyText) + "@1@0@5f", bad: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, signs, ok := parseKey([]byte(tt.text))
			if ok == tt.bad {
				t.Fatalf("parseKey(%q) = %d, ok %t", tt.text, got, ok)
			}
			if got != tt.want || signs != tt.signs {
				t.Errorf("parseKey(%q) = %#x with signs %b, want %#x with signs %b", tt.text, got, signs, tt.want, tt.signs)
			}
		})
	}
}

func TestDecode_KeySigns(t *testing.T) {
	const head = "\x87\xa4type\xb0FullSyncBatchMsg\xabinstance_id\xa1i\xa9worker_id\x00" +
		"\xa8location\xa1L\xa7sync_id\xa1s\xa8batch_id\x00\xa4keys"
	tests := []struct {
		name, keys string
		want       Signs
	}{
		{"none", "\x90", 0},
		{"small", "\x92\x01\xcf\x7f\xff\xff\xff\xff\xff\xff\xff", 0},
		{"negative", "\x91\xff", SignNegative},
		{"int64", "\x91\xd3\x80\x00\x00\x00\x00\x00\x00\x00", SignNegative},
		{"uint64", "\x91\xcf\x80\x00\x00\x00\x00\x00\x00\x00", SignUnsigned},
		{"bin", "\x91\xc4\x08\x00\x00\x00\x00\x00\x00\x00\x01", SignBin},
		{"both signs", "\x92\xff\xcf\x80\x00\x00\x00\x00\x00\x00\x00", SignNegative | SignUnsigned},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, err := Decode([]byte(head + tt.keys))
			if err != nil {
				t.Fatal(err)
			}
			if got := m.(*FullSyncBatchMsg).KeySigns; got != tt.want {
				t.Errorf("signs %b, want %b", got, tt.want)
			}
		})
	}
	// The fast path of batches keeps its own account.
	for _, tt := range []struct {
		key    Key
		signed bool
		want   Signs
	}{{5, false, 0}, {1 << 63, false, SignUnsigned}, {1 << 63, true, SignNegative}, {1<<64 - 1, true, SignNegative}} {
		batch := &BatchedKVOperationMsg{Operations: []KVOp{{Key: tt.key}, {Key: 1}, {Key: 2}}}
		m, err := Decode(AppendWith(nil, batch, Options{SignedKeys: tt.signed}))
		if err != nil {
			t.Fatal(err)
		}
		if got := m.(*BatchedKVOperationMsg).KeySigns; got != tt.want {
			t.Errorf("batch with key %#x, signed %t: signs %b, want %b", tt.key, tt.signed, got, tt.want)
		}
	}
}

func TestDecode_BinKey(t *testing.T) {
	const head = "\x85\xa4type\xaaKVAdmitMsg\xabinstance_id\xa1i\xa9worker_id\x00\xa8location\xa1L\xa3key"
	m, err := Decode([]byte(head + "\xc4\x20" + "\x80\x02\x03\x04\x05\x06\x07\x08" + strings.Repeat("x", 24)))
	if err != nil {
		t.Fatal(err)
	}
	if got := m.(*KVAdmitMsg).Key; got != 0x8002030405060708 {
		t.Errorf("key %#x", got)
	}
	if _, err := Decode([]byte(head + "\xc4\x07" + "1234567")); ReasonOf(err) != ReasonRange {
		t.Errorf("7 bytes: error %v, want reason range", err)
	}
}
