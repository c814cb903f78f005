// Package say puts amounts into words, as commands and messages of the daemon tell
// them.
package say
