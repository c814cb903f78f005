// Package space decides how much of the local disk a drive takes: how far its
// cache may grow, when content is let go of and which, when writers are slowed
// and when they are refused, and what df tells. It is pure: numbers in, numbers
// out; package evict does what it says.
package space
