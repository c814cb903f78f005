// Command skep is a drive that you mount as a folder and that lives, sealed, on
// the free disk space of other people's computers.
package main
