package e2e

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/vmihailenco/msgpack/v5"
)

// The messages of the recording are put on the wire, and the answers taken off it, by
// a codec that is not the product's own.

// pack writes a recorded message as LMCache's encoder would: keys in their order,
// shortest integers. {"hex": ...} is a raw frame.
func pack(v any) ([]byte, error) {
	if o, ok := v.(object); ok && len(o) == 1 && o[0].key == "hex" {
		return hex.DecodeString(o.text("hex"))
	}
	var b bytes.Buffer
	enc := msgpack.NewEncoder(&b)
	enc.UseCompactInts(true)
	if err := packValue(enc, v); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func packValue(enc *msgpack.Encoder, v any) error {
	switch v := v.(type) {
	case nil:
		return enc.EncodeNil()
	case bool:
		return enc.EncodeBool(v)
	case string:
		return enc.EncodeString(v)
	case json.Number:
		if strings.ContainsAny(v.String(), ".eE") {
			f, err := v.Float64()
			if err != nil {
				return err
			}
			return enc.EncodeFloat64(f)
		}
		if u, err := strconv.ParseUint(v.String(), 10, 64); err == nil {
			return enc.EncodeUint(u)
		}
		i, err := strconv.ParseInt(v.String(), 10, 64)
		if err != nil {
			return err
		}
		return enc.EncodeInt(i)
	case []any:
		if err := enc.EncodeArrayLen(len(v)); err != nil {
			return err
		}
		for _, item := range v {
			if err := packValue(enc, item); err != nil {
				return err
			}
		}
		return nil
	case object:
		if err := enc.EncodeMapLen(len(v)); err != nil {
			return err
		}
		for _, m := range v {
			if err := enc.EncodeString(m.key); err != nil {
				return err
			}
			if err := packValue(enc, m.value); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("no msgpack for %T", v)
}

// unpack reads a frame as a JSON value, map keys in their order.
func unpack(frame []byte) (any, error) {
	r := bytes.NewReader(frame)
	dec := msgpack.NewDecoder(r)
	v, err := unpackValue(dec)
	if err != nil {
		return nil, fmt.Errorf("frame %x: %w", frame, err)
	}
	if r.Len() > 0 {
		return nil, fmt.Errorf("frame %x: %d bytes too many", frame, r.Len())
	}
	return v, nil
}

func unpackValue(dec *msgpack.Decoder) (any, error) {
	code, err := dec.PeekCode()
	if err != nil {
		return nil, err
	}
	switch {
	case code&0xf0 == 0x90 || code == 0xdc || code == 0xdd:
		n, err := dec.DecodeArrayLen()
		if err != nil {
			return nil, err
		}
		list := make([]any, n)
		for i := range list {
			if list[i], err = unpackValue(dec); err != nil {
				return nil, err
			}
		}
		return list, nil
	case code&0xf0 == 0x80 || code == 0xde || code == 0xdf:
		n, err := dec.DecodeMapLen()
		if err != nil {
			return nil, err
		}
		o := make(object, n)
		for i := range o {
			key, err := unpackValue(dec)
			if err != nil {
				return nil, err
			}
			o[i].key = fmt.Sprint(key)
			if o[i].value, err = unpackValue(dec); err != nil {
				return nil, err
			}
		}
		return o, nil
	}
	v, err := dec.DecodeInterface()
	if err != nil {
		return nil, err
	}
	switch v := v.(type) {
	case nil, bool, string:
		return v, nil
	case float32, float64:
		b, err := json.Marshal(v)
		if err != nil {
			return nil, err
		}
		if !bytes.ContainsAny(b, ".eE") {
			b = append(b, ".0"...)
		}
		return json.Number(b), nil
	case int8, int16, int32, int64, uint8, uint16, uint32, uint64:
		return json.Number(fmt.Sprint(v)), nil
	}
	return nil, fmt.Errorf("msgpack code %#x is no JSON", code)
}

func TestMsgpack_ThereAndBack(t *testing.T) {
	const text = `{"type":"T","a":[0,127,128,255,256,65536,4294967296,18446744073709551615,-1,-32,-33,-129,-9223372036854775808],` +
		`"f":[0.5,1.0],"n":null,"b":[true,false],"s":"инстанс-é","m":{"z":1,"a":{}}}`
	frame, err := pack(mustJSON(text))
	if err != nil {
		t.Fatal(err)
	}
	v, err := unpack(frame)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if string(b) != text {
		t.Fatalf("want %s\ngot  %s", text, b)
	}
}
