package stack

import "syscall"

// dieWithParent has the kernel kill the child when the test binary dies, even by
// kill -9 or by a time-out of the tests.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }
