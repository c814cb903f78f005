// Package storetest has what every store of a holder must pass, a small store
// in memory that passes it, and the groups and packs that such tests bring.
package storetest
