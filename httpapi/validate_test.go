package httpapi

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// show writes what a body was read as, or what was wrong with it.
func show(vs values, err error) string {
	if err == nil {
		var parts []string
		for _, v := range vs {
			switch {
			case v.null:
				parts = append(parts, "null")
			case !v.present:
				parts = append(parts, "-")
			default:
				parts = append(parts, fmt.Sprintf("%q %t %v %t %q", v.str, v.boolean, v.ints, v.beyond(), v.pair))
			}
		}
		return strings.Join(parts, " | ")
	}
	fs, ok := err.(faults)
	if !ok {
		return "400 " + err.Error()
	}
	var parts []string
	for _, f := range fs {
		loc, _ := json.Marshal(f.Loc)
		parts = append(parts, fmt.Sprintf("%s %s %s %s", f.Type, loc, f.Input, f.Ctx))
	}
	return strings.Join(parts, "; ")
}

func TestSchema_Parse(t *testing.T) {
	ints := schema{{name: "n", kind: kindInts, required: true}}
	flags := schema{{name: "b", kind: kindBool, nullable: true}}
	words := schema{{name: "s", kind: kindString, maxBytes: 4, nullable: true}}
	letters := schema{{name: "s", kind: kindString, maxChars: 3}}
	pairs := schema{{name: "p", kind: kindPair, required: true}}
	long := `"` + strings.Repeat("x", 1025) + `"` // beyond what a log entry can hold
	whole := func(list string) string { return `"" false [` + list + `] false ["" ""]` }
	flag := func(b bool) string { return fmt.Sprintf(`"" %t [] false ["" ""]`, b) }
	for _, c := range []struct {
		sc         schema
		body, want string
	}{
		{ints, `{"n":[]}`, whole("")},
		{ints, `{"n":[1,-1,0,-0,"5",6.0,true,false,1e3,-2.0]}`, whole("1 -1 0 0 5 6 1 0 1000 -2")},
		{ints, `{"n":[" 7 ","+8","-9","1_000","1.000","007","-0"]}`, whole("7 8 -9 1000 1 7 0")},
		{ints, `{"n":[9223372036854775807,-9223372036854775808]}`, whole("9223372036854775807 -9223372036854775808")},
		{ints, `{"n":[2305843009213693951,9223372036854775808]}`, `"" false [2305843009213693951 4] true ["" ""]`},
		{ints, `{"n":["-9223372036854775809"]}`, `"" false [-5] true ["" ""]`},
		{ints, `{"n":["_1"]}`, `int_parsing ["body","n",0] "_1" `},
		{ints, `{"n":["1__0"]}`, `int_parsing ["body","n",0] "1__0" `},
		{ints, `{"n":["1_"]}`, `int_parsing ["body","n",0] "1_" `},
		{ints, `{"n":["+-1"]}`, `int_parsing ["body","n",0] "+-1" `},
		{ints, `{"n":["0x1"]}`, `int_parsing ["body","n",0] "0x1" `},
		{ints, `{"n":[""]}`, `int_parsing ["body","n",0] "" `},
		{ints, `{"n":["1.5"]}`, `int_parsing ["body","n",0] "1.5" `},
		{ints, `{"n":[1e300]}`, `int_parsing_size ["body","n",0] 1e300 `},
		{ints, `{"n":[1.5,null,{"a":[]},"x"]}`, `int_from_float ["body","n",0] 1.5 ; int_type ["body","n",1] null ; int_type ["body","n",2] {"a":[]} ; int_parsing ["body","n",3] "x" `},
		{ints, `{"n":[1],"n":[2]}`, whole("2")},
		{ints, `{"\u006e":[3]}`, whole("3")},
		{ints, "\ufeff{\"n\":[4]}", whole("4")},
		{ints, `{"x":{"n":[1]},"n":[5]}`, whole("5")},
		{flags, `{"b":true}`, flag(true)},
		{flags, `{"b":"Yes"}`, flag(true)},
		{flags, `{"b":"OFF"}`, flag(false)},
		{flags, `{"b":1}`, flag(true)},
		{flags, `{"b":0.0}`, flag(false)},
		{flags, `{"b":null}`, "null"},
		{flags, `{}`, "-"},
		{flags, `{"b":2}`, `bool_parsing ["body","b"] 2 `},
		{flags, `{"b":" yes"}`, `bool_parsing ["body","b"] " yes" `},
		{flags, `{"b":[]}`, `bool_type ["body","b"] [] `},
		{words, `{"s":"é"}`, `"é" false [] false ["" ""]`},
		{words, `{"s":"\ud83d\ude00"}`, `"😀" false [] false ["" ""]`},
		{words, `{"s":"\"\\\/\b"}`, `"\"\\/\b" false [] false ["" ""]`},
		{words, `{"s":"12345"}`, `string_too_long ["body","s"] "12345" {"max_length":4}`},
		{words, `{"s":"ééé"}`, `string_too_long ["body","s"] "ééé" {"max_length":4}`},
		{letters, `{"s":"界界界"}`, `"界界界" false [] false ["" ""]`},
		{letters, `{"s":"界界界x"}`, `string_too_long ["body","s"] "界界界x" {"max_length":3}`},
		{words, `{"s":5}`, `string_type ["body","s"] 5 `},
		{pairs, `{"p":["a","b"]}`, `"" false [] false ["a" "b"]`},
		{pairs, `{"p":[]}`, `missing ["body","p",0] [] ; missing ["body","p",1] [] `},
		{pairs, `{"p":[1]}`, `string_type ["body","p",0] 1 ; missing ["body","p",1] [1] `},
		{pairs, `{"p":[1,2,3]}`, `too_long ["body","p"] [1,2,3] {"field_type":"Tuple","max_length":2,"actual_length":3}`},
		{bodyMove[:1], `{"old_position":["a",` + long + `]}`, `string_too_long ["body","old_position",1] ` + long + ` {"max_length":1024}`},
		{bodyClear[1:2], `{"location":` + long + `}`, `string_too_long ["body","location"] ` + long + ` {"max_length":1024}`},
		{pairs, `{"p":"ab"}`, `tuple_type ["body","p"] "ab" `},

		{ints, ``, `missing ["body"]  `},
		{ints, ` null `, `missing ["body"]  `},
		{ints, ` [1] `, `model_attributes_type ["body"] [1] `},
		{ints, ` `, `json_invalid ["body",1] {} {"error":"Expecting value"}`},
		{ints, `{`, `json_invalid ["body",1] {} {"error":"Expecting property name enclosed in double quotes"}`},
		{ints, `{"é":[1,]}`, `json_invalid ["body",8] {} {"error":"Expecting value"}`},
		{ints, `{"n":[1],}`, `json_invalid ["body",9] {} {"error":"Expecting property name enclosed in double quotes"}`},
		{ints, `{"n" 1}`, `json_invalid ["body",5] {} {"error":"Expecting ':' delimiter"}`},
		{ints, `{"n":}`, `json_invalid ["body",5] {} {"error":"Expecting value"}`},
		{ints, `{"n":[01]}`, `json_invalid ["body",7] {} {"error":"Expecting ',' delimiter"}`},
		{ints, `{"n":[1.]}`, `json_invalid ["body",7] {} {"error":"Expecting ',' delimiter"}`},
		{ints, `{"n":[1e]}`, `json_invalid ["body",7] {} {"error":"Expecting ',' delimiter"}`},
		{ints, `{"n":[-]}`, `json_invalid ["body",6] {} {"error":"Expecting value"}`},
		{ints, `{"n":[tru]}`, `json_invalid ["body",6] {} {"error":"Expecting value"}`},
		{ints, `{"n":"a`, `json_invalid ["body",5] {} {"error":"Unterminated string starting at"}`},
		{ints, `{"n":"a\`, `json_invalid ["body",5] {} {"error":"Unterminated string starting at"}`},
		{ints, "{\"n\":\"\n\"}", `json_invalid ["body",6] {} {"error":"Invalid control character at"}`},
		{ints, `{"n":"\x"}`, `json_invalid ["body",6] {} {"error":"Invalid \\escape"}`},
		{ints, `{"n":"\u12g4"}`, `json_invalid ["body",7] {} {"error":"Invalid \\uXXXX escape"}`},
		{ints, `{"x":"\ud800","n":[1]}`, `400 a text with half a surrogate pair`},
		{ints, `{"x":"\udc00\ud800","n":[1]}`, `400 a text with half a surrogate pair`},
		{ints, `{"x":1e400}`, `400 a number beyond 64-bit floating point`},
		{ints, `{"x":-` + strings.Repeat("9", 400) + `.5}`, `400 a number beyond 64-bit floating point`},
		{ints, `{"x":` + strings.Repeat("9", 5000) + `}`, `400 a number of more than 4300 digits`},
		{ints, `{"x":` + strings.Repeat("[", maxDepth) + `}`, `400 more than 64 lists and objects inside each other`},
		{ints, "{\"n\":[1],\"x\":\"\xff\"}", `400 the body is not valid UTF-8`},
	} {
		got := show(c.sc.parse([]byte(c.body)))
		if got != c.want {
			t.Errorf("%.80s\n got %s\nwant %s", c.body, got, c.want)
		}
	}
}

func TestSchema_FaultsAreBounded(t *testing.T) {
	r := newRig(t)
	w := r.post("/lookup", `{"tokens":[`+strings.Repeat(`"x",`, 100_000)+`1]}`)
	var answer struct{ Detail []fault }
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code != 422 || len(answer.Detail) != maxFaults {
		t.Fatalf("%d, %d faults, %v", w.Code, len(answer.Detail), err)
	}
	w = r.post("/lookup", `{"x":"`+strings.Repeat("y", 100_000)+`"}`)
	if w.Code != 422 || w.Body.Len() > 1000 || !strings.Contains(w.Body.String(), `"(100009 bytes, left out)"`) && !strings.Contains(w.Body.String(), "bytes, left out") {
		t.Fatalf("%d %d bytes %.300s", w.Code, w.Body.Len(), w.Body)
	}
	w = r.send("POST", "/lookup", strings.Repeat("é", 100_000), "Content-Type", "text/plain")
	if w.Code != 422 || w.Body.Len() > 2*maxInput || !json.Valid(w.Body.Bytes()) {
		t.Fatalf("%d %d bytes", w.Code, w.Body.Len())
	}
}

// tokensOf reads a lookup's body the general way.
func tokensOf(body []byte) (string, bool) {
	vs, err := bodyLookup.parse(body)
	if err != nil {
		return show(nil, err), false
	}
	return fmt.Sprint(vs[lookupTokens].ints, vs[lookupTokens].beyond(), vs[lookupInstance].str), true
}

// FuzzLookupBody holds the one-pass scanner against the general way: what it takes,
// the other reads alike.
func FuzzLookupBody(f *testing.F) {
	for _, s := range []string{
		`{"tokens":[1,2,3]}`, ` { "tokens" : [ 1 , -2 ,3 ] } `, `{"tokens":[]}`, `{"tokens":[0,-0,00]}`, `{"tokens":[1,]}`, `{"tokens":[,1]}`,
		`{"tokens":[1.0]}`, `{"tokens":[1e3]}`, `{"tokens":[999999999999999999,9223372036854775807]}`, `{"tokens":[1],"tokens":[2]}`,
		`{"tokens":[1]}{`, "{\"tokens\":[1]}\x00", `{"tokens":[-]}`, `{"tokens":[1`, `{"tokens":["1"]}`, `{"tokens":[1],"instance_id":"a"}`, "{\"tokens\":[1\u00a0]}",
	} {
		f.Add([]byte(s))
	}
	for _, r := range recordedRows(f) {
		if r.Request.Path == "/lookup" && len(r.body(f)) < 4096 {
			f.Add([]byte(r.body(f)))
		}
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		fast, ok := scanTokens(body, nil)
		if !ok {
			return
		}
		slow, valid := tokensOf(body)
		if !valid {
			t.Fatalf("%q is taken in one pass and refused otherwise: %s", body, slow)
		}
		if got := fmt.Sprint(fast, false, ""); got != slow {
			t.Fatalf("%q is %s in one pass and %s otherwise", body, got, slow)
		}
	})
}

func TestScanTokens_TakesTheUsual(t *testing.T) {
	for _, s := range []string{`{"tokens":[1,2,3]}`, `{"tokens": [1, 2, 3]}`, "\n{ \"tokens\":\t[\n-1 ,\r\n 20 ] }\n", `{"tokens":[]}`, `{"tokens":[0]}`} {
		if _, ok := scanTokens([]byte(s), nil); !ok {
			t.Errorf("%s goes the long way", s)
		}
	}
}

// FuzzRESTBody sends anything to every POST route: never a 5xx for a bad body, never a
// panic, and the state does not change.
func FuzzRESTBody(f *testing.F) {
	r := newRig(f)
	var paths []string
	for _, rt := range r.s.routes {
		if rt.body != nil {
			paths = append(paths, rt.path)
		}
	}
	r.register("a", 0)
	r.admit("a", 0, "LocalCPUBackend", chain(f, "builtin@0", counting(0, 600))...)
	for i, path := range paths {
		for _, row := range recordedRows(f) {
			if row.Request.Path == path && len(row.body(f)) < 2048 {
				f.Add(uint8(i), row.body(f), "application/json")
			}
		}
	}
	f.Add(uint8(0), `{"tokens":[1]}`, "text/plain; x")
	before := r.state.Registry().Digest()
	f.Fuzz(func(t *testing.T, which uint8, body, contentType string) {
		r.t = t
		w := r.send("POST", paths[int(which)%len(paths)], body, "Content-Type", contentType)
		if w.Code >= 500 || !json.Valid(w.Body.Bytes()) {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		if r.state.Registry().Digest() != before {
			t.Fatal("the state has changed")
		}
	})
}
