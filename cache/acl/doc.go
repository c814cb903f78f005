// Package acl is POSIX access control lists: the bytes in which Linux passes
// them as extended attributes, the mode that stands for one, and what becomes
// of one when a mode changes or a file is made below it.
//
// The rules are those of POSIX 1003.1e draft 17 as Linux has them (acl(5),
// fs/posix_acl.c). All functions are pure; a List is not changed by them.
package acl
