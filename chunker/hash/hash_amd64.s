#include "textflag.h"

// BLAKE3, sixteen inputs at once: word i of the state of all of them is Zi, word i of
// the block is Z(16+i).

DATA iv<>+0(SB)/4, $0x6a09e667
DATA iv<>+4(SB)/4, $0xbb67ae85
DATA iv<>+8(SB)/4, $0x3c6ef372
DATA iv<>+12(SB)/4, $0xa54ff53a
DATA iv<>+16(SB)/4, $64
GLOBL iv<>(SB), RODATA|NOPTR, $20

// STEP is a quarter of G for four columns or diagonals: a += b + m, d = (d ^ a) >>> r,
// c += d, b = (b ^ c) >>> s.
#define STEP(a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3, m0, m1, m2, m3, r, s) \
	VPADDD m0, a0, a0 \
	VPADDD m1, a1, a1 \
	VPADDD m2, a2, a2 \
	VPADDD m3, a3, a3 \
	VPADDD b0, a0, a0 \
	VPADDD b1, a1, a1 \
	VPADDD b2, a2, a2 \
	VPADDD b3, a3, a3 \
	VPXORD a0, d0, d0 \
	VPXORD a1, d1, d1 \
	VPXORD a2, d2, d2 \
	VPXORD a3, d3, d3 \
	VPRORD r, d0, d0 \
	VPRORD r, d1, d1 \
	VPRORD r, d2, d2 \
	VPRORD r, d3, d3 \
	VPADDD d0, c0, c0 \
	VPADDD d1, c1, c1 \
	VPADDD d2, c2, c2 \
	VPADDD d3, c3, c3 \
	VPXORD c0, b0, b0 \
	VPXORD c1, b1, b1 \
	VPXORD c2, b2, b2 \
	VPXORD c3, b3, b3 \
	VPRORD s, b0, b0 \
	VPRORD s, b1, b1 \
	VPRORD s, b2, b2 \
	VPRORD s, b3, b3

// ROUND mixes the words of the block into the state, in this order.
#define ROUND(m0, m1, m2, m3, m4, m5, m6, m7, m8, m9, m10, m11, m12, m13, m14, m15) \
	STEP(Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15, m0, m2, m4, m6, $16, $12) \
	STEP(Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15, m1, m3, m5, m7, $8, $7) \
	STEP(Z0, Z1, Z2, Z3, Z5, Z6, Z7, Z4, Z10, Z11, Z8, Z9, Z15, Z12, Z13, Z14, m8, m10, m12, m14, $16, $12) \
	STEP(Z0, Z1, Z2, Z3, Z5, Z6, Z7, Z4, Z10, Z11, Z8, Z9, Z15, Z12, Z13, Z14, m9, m11, m13, m15, $8, $7)

// TURN turns four words of four inputs, in each quarter of the registers, into the
// same word of the four, and the other way.
#define TURN(a0, a1, a2, a3) \
	VPUNPCKLDQ a1, a0, Z8 \
	VPUNPCKHDQ a1, a0, Z9 \
	VPUNPCKLDQ a3, a2, Z10 \
	VPUNPCKHDQ a3, a2, Z11 \
	VPUNPCKLQDQ Z10, Z8, a0 \
	VPUNPCKHQDQ Z10, Z8, a1 \
	VPUNPCKLQDQ Z11, Z9, a2 \
	VPUNPCKHQDQ Z11, Z9, a3

// LOAD loads 16 bytes of every fourth input, from one on.
#define LOAD(off, base, a) \
	VBROADCASTI32X4 off(base), a \
	VINSERTI32X4 $1, off(base)(R12*1), a, a \
	VINSERTI32X4 $2, off(base)(R13*1), a, a \
	VINSERTI32X4 $3, off(base)(BX*1), a, a

// WORDS loads four words of all inputs.
#define WORDS(off, a0, a1, a2, a3) \
	LOAD(off, R8, a0) \
	LOAD(off, R9, a1) \
	LOAD(off, R10, a2) \
	LOAD(off, R11, a3) \
	TURN(a0, a1, a2, a3)

// STORE stores four words of every fourth output.
#define STORE(off, a) \
	VEXTRACTI32X4 $0, a, off(DX) \
	VEXTRACTI32X4 $1, a, off+128(DX) \
	VEXTRACTI32X4 $2, a, off+256(DX) \
	VEXTRACTI32X4 $3, a, off+384(DX)

// func compress16(out *[lanes]CV, in *byte, stride, blocks uintptr, key *CV, counters *[2][lanes]uint32, first, mid, last uint32)
TEXT ·compress16(SB), NOSPLIT, $0-60
	MOVQ out+0(FP), DX
	MOVQ in+8(FP), R8
	MOVQ stride+16(FP), R9
	MOVQ blocks+24(FP), CX
	MOVQ key+32(FP), SI
	MOVQ counters+40(FP), AX
	MOVL first+48(FP), DI

	// R8 to R11 are the first four inputs; R12, R13 and BX from one to the fourth, the
	// eighth and the twelfth after it.
	LEAQ (R9*4), R12
	LEAQ (R9*8), R13
	LEAQ (R12)(R9*8), BX
	LEAQ (R8)(R9*2), R10
	LEAQ (R10)(R9*1), R11
	ADDQ R8, R9

	VPBROADCASTD 0(SI), Z0
	VPBROADCASTD 4(SI), Z1
	VPBROADCASTD 8(SI), Z2
	VPBROADCASTD 12(SI), Z3
	VPBROADCASTD 16(SI), Z4
	VPBROADCASTD 20(SI), Z5
	VPBROADCASTD 24(SI), Z6
	VPBROADCASTD 28(SI), Z7
	LEAQ 16384(R8), SI // what is likely to be hashed next

block:
	WORDS(0, Z16, Z17, Z18, Z19)
	WORDS(16, Z20, Z21, Z22, Z23)
	WORDS(32, Z24, Z25, Z26, Z27)
	WORDS(48, Z28, Z29, Z30, Z31)
	VPBROADCASTD iv<>+0(SB), Z8
	VPBROADCASTD iv<>+4(SB), Z9
	VPBROADCASTD iv<>+8(SB), Z10
	VPBROADCASTD iv<>+12(SB), Z11
	VMOVDQU32 (AX), Z12
	VMOVDQU32 64(AX), Z13
	VPBROADCASTD iv<>+16(SB), Z14
	VPBROADCASTD DI, Z15
	ROUND(Z16, Z17, Z18, Z19, Z20, Z21, Z22, Z23, Z24, Z25, Z26, Z27, Z28, Z29, Z30, Z31)
	ROUND(Z18, Z22, Z19, Z26, Z23, Z16, Z20, Z29, Z17, Z27, Z28, Z21, Z25, Z30, Z31, Z24)
	ROUND(Z19, Z20, Z26, Z28, Z29, Z18, Z23, Z30, Z22, Z21, Z25, Z16, Z27, Z31, Z24, Z17)
	ROUND(Z26, Z23, Z28, Z25, Z30, Z19, Z29, Z31, Z20, Z16, Z27, Z18, Z21, Z24, Z17, Z22)
	ROUND(Z28, Z29, Z25, Z27, Z31, Z26, Z30, Z24, Z23, Z18, Z21, Z19, Z16, Z17, Z22, Z20)
	ROUND(Z25, Z30, Z27, Z21, Z24, Z28, Z31, Z17, Z29, Z19, Z16, Z26, Z18, Z22, Z20, Z23)
	ROUND(Z27, Z31, Z21, Z16, Z17, Z25, Z24, Z22, Z30, Z26, Z18, Z28, Z19, Z20, Z23, Z29)
	VPXORD Z8, Z0, Z0
	VPXORD Z9, Z1, Z1
	VPXORD Z10, Z2, Z2
	VPXORD Z11, Z3, Z3
	VPXORD Z12, Z4, Z4
	VPXORD Z13, Z5, Z5
	VPXORD Z14, Z6, Z6
	VPXORD Z15, Z7, Z7

	DECQ CX
	JZ   done
	ADDQ $64, R8
	ADDQ $64, R9
	ADDQ $64, R10
	ADDQ $64, R11
	MOVL mid+52(FP), DI
	CMPQ CX, $1
	JNE  ahead
	MOVL last+56(FP), DI

ahead:
	PREFETCHT0 0(SI)
	PREFETCHT0 64(SI)
	PREFETCHT0 128(SI)
	PREFETCHT0 192(SI)
	PREFETCHT0 256(SI)
	PREFETCHT0 320(SI)
	PREFETCHT0 384(SI)
	PREFETCHT0 448(SI)
	PREFETCHT0 512(SI)
	PREFETCHT0 576(SI)
	PREFETCHT0 640(SI)
	PREFETCHT0 704(SI)
	PREFETCHT0 768(SI)
	PREFETCHT0 832(SI)
	PREFETCHT0 896(SI)
	PREFETCHT0 960(SI)
	PREFETCHT0 1024(SI)
	ADDQ $1088, SI
	JMP  block

done:
	TURN(Z0, Z1, Z2, Z3)
	TURN(Z4, Z5, Z6, Z7)
	STORE(0, Z0)
	STORE(32, Z1)
	STORE(64, Z2)
	STORE(96, Z3)
	STORE(16, Z4)
	STORE(48, Z5)
	STORE(80, Z6)
	STORE(112, Z7)
	VZEROUPPER
	RET
