package lmcache

func packJSON(frame []byte) ([]byte, *DecodeError) {
	return nil, &DecodeError{Reason: ReasonSyntax, Detail: "json"}
}
