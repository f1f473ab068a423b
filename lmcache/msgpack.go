package lmcache

// MessagePack's type bytes (https://github.com/msgpack/msgpack/blob/master/spec.md).
const (
	mpNil      = 0xc0
	mpReserved = 0xc1
	mpFalse    = 0xc2
	mpTrue     = 0xc3
	mpBin8     = 0xc4
	mpBin16    = 0xc5
	mpBin32    = 0xc6
	mpExt8     = 0xc7
	mpExt16    = 0xc8
	mpExt32    = 0xc9
	mpFloat32  = 0xca
	mpFloat64  = 0xcb
	mpUint8    = 0xcc
	mpUint16   = 0xcd
	mpUint32   = 0xce
	mpUint64   = 0xcf
	mpInt8     = 0xd0
	mpInt16    = 0xd1
	mpInt32    = 0xd2
	mpInt64    = 0xd3
	mpFixExt1  = 0xd4
	mpFixExt16 = 0xd8
	mpStr8     = 0xd9
	mpStr16    = 0xda
	mpStr32    = 0xdb
	mpArray16  = 0xdc
	mpArray32  = 0xdd
	mpMap16    = 0xde
	mpMap32    = 0xdf
)

// kind names the type of the value that starts with c.
func kind(c byte) string {
	switch {
	case c < 0x80 || c >= 0xe0 || c >= mpUint8 && c <= mpInt64:
		return "int"
	case c < 0x90 || c == mpMap16 || c == mpMap32:
		return "map"
	case c < 0xa0 || c == mpArray16 || c == mpArray32:
		return "array"
	case c < 0xc0 || c >= mpStr8 && c <= mpStr32:
		return "str"
	case c == mpNil:
		return "nil"
	case c == mpFalse || c == mpTrue:
		return "bool"
	case c >= mpBin8 && c <= mpBin32:
		return "bin"
	case c == mpFloat32 || c == mpFloat64:
		return "float"
	case c == mpReserved:
		return "0xc1"
	default:
		return "ext"
	}
}
