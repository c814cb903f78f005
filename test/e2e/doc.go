// Package e2e tests the life of a drive from end to end: a swarm of peer
// processes on loopback, a drive that the kernel mounts, programs that people
// use on it, and the misfortunes that it is made for: peers that die, lie and
// lose their disks, a device that is lost, a daemon that is killed at any
// moment, too few shards.
//
// The ordinary run has trees that show all of it within some minutes. With
// SKEP_SOAK set to a number of rounds, TestSoak goes on from there with larger
// trees and random kills.
package e2e
