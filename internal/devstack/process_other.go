//go:build unix && !linux

package devstack

import "syscall"

// dieWithParent does nothing: only Linux ends a child together with its parent. What is left over after a
// kill -9 elsewhere answers on its port, which the next start reports.
func dieWithParent(*syscall.SysProcAttr, syscall.Signal) {}
