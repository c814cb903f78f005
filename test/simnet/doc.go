// Package simnet runs swarms of full peers in one test process: host, DHT,
// holder and client each, on loopback or on a simulated network whose clock is
// that of testing/synctest.
//
// On the simulated network days pass in the time it takes to do what happens in
// them, latencies and the loss of peers are what the test says, and what is
// random in the swarm itself (keys, contents) follows from a seed.
package simnet
