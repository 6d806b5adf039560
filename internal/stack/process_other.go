//go:build unix && !linux

package stack

import "syscall"

// dieWithParent does nothing where the kernel has no such thing: a test binary
// that is killed leaves its processes behind there.
func dieWithParent(*syscall.SysProcAttr) {}
