//go:build !amd64

package hash

var wide = false

func compress16(*[lanes]CV, *byte, uintptr, uintptr, *CV, *[2][lanes]uint32, uint32, uint32, uint32) {
	panic("BUG: hash: there is no such instruction")
}

func bytesOf(*[2 * lanes]CV) *byte { panic("BUG: hash: there is no such instruction") }
