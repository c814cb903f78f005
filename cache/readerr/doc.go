// Package readerr names what can be wrong with bytes that are not on this
// device. The four are different things to a user: lost will not come back by
// waiting, unreachable may; corrupt is a fault of somebody's; absent was never
// there.
package readerr
