// Package vectors compares encodings with files that were written once and are
// kept for ever: what drives in use hold, tomorrow's code must read, and must
// go on writing.
//
// A vector is testdata/NAME.hex of the package that is tested: hexadecimal
// digits in lines, and lines of text that begin with #. With the flag -update,
// vectors that are missing are made; one that is there is never changed. An
// encoding that changes needs a new version, and a new vector beside the old.
package vectors
