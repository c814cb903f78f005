// Package doctor looks at what skep needs of a computer, and says what is wrong
// and what to do about it. Each check is a function of what it is given and of
// the computer; it changes nothing.
package doctor
