// Package liar is a storage peer that lies: host, DHT, store and holder are the
// real ones, and what the holder answers is altered on its way out, once the
// process is told to lie. Its answers stay well formed, so that only who checks
// them finds out.
//
// It runs in a process of its own, which a test binary becomes when Env is set.
package liar
