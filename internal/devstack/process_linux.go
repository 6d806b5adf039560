package devstack

import "syscall"

// dieWithParent has the kernel send signal to the child when its parent dies, even by kill -9.
func dieWithParent(attr *syscall.SysProcAttr, signal syscall.Signal) { attr.Pdeathsig = signal }
