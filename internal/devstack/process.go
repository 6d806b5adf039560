//go:build unix

package devstack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// stopLimit is how long a child may take to stop in order before it is killed.
	stopLimit = 20 * time.Second
	// logTailBytes of a log are shown with an error: enough for the reason, not for the history.
	logTailBytes = 2 << 10
	// logMaxBytes is the size at which a log is set aside when its service starts.
	logMaxBytes = 16 << 20
)

// process is one child. It writes straight into its log file, so that it needs no help from its parent to
// go on writing, and it leads its own process group, so that Ctrl-C reaches it through Stop alone.
type process struct {
	name     string
	cmd      *exec.Cmd
	logPath  string
	logStart int64
	stopWith syscall.Signal
	stopping atomic.Bool
	done     chan struct{}
	exit     error // why it ended; read after done
}

// startProcess starts cmd as a child that stopWith ends in order, and that deathSignal ends when this
// process dies without having stopped it, where the platform can do that.
func startProcess(name string, cmd *exec.Cmd, logPath string, stopWith, deathSignal syscall.Signal) (*process, error) {
	log, err := openLog(logPath)
	if err != nil {
		return nil, fmt.Errorf("open the log of %s: %w", name, err)
	}
	defer func() { _ = log.Close() }()
	info, err := log.Stat()
	if err != nil {
		return nil, fmt.Errorf("open the log of %s: %w", name, err)
	}

	cmd.Stdout, cmd.Stderr = log, log
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	dieWithParent(cmd.SysProcAttr, deathSignal)

	p := &process{name: name, cmd: cmd, logPath: logPath, logStart: info.Size(), stopWith: stopWith, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// On Linux the death signal follows the thread that started the child, not the process: the
		// thread has to live as long as the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.exit = cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

// PID is the child's process id.
func (p *process) PID() int { return p.cmd.Process.Pid }

// LogPath is the file that the child writes its log to.
func (p *process) LogPath() string { return p.logPath }

// Done is closed when the child has ended, for whatever reason.
func (p *process) Done() <-chan struct{} { return p.done }

// Err is nil while the child runs and after Stop. If it ended by itself, Err says how, with its last words.
func (p *process) Err() error {
	select {
	case <-p.done:
	default:
		return nil
	}
	if p.stopping.Load() {
		return nil
	}
	how := "ended"
	if p.exit != nil {
		how += " (" + p.exit.Error() + ")"
	}
	return fmt.Errorf("%s %s%s", p.name, how, p.lastWords())
}

// Stop ends the child in order and waits for it. A child that takes longer than 20 s, or than ctx allows,
// is killed, which the error then says. A child that has already ended is no error.
func (p *process) Stop(ctx context.Context) error {
	p.stopping.Store(true)
	ctx, cancel := context.WithTimeout(ctx, stopLimit)
	defer cancel()

	if err := p.cmd.Process.Signal(p.stopWith); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.name, err)
	}
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
	}
	if err := p.kill(); err != nil {
		return fmt.Errorf("kill %s: %w", p.name, err)
	}
	return fmt.Errorf("%s did not stop in time and was killed%s", p.name, p.lastWords())
}

func (p *process) kill() error {
	p.stopping.Store(true)
	select {
	case <-p.done:
		return nil // its id may be another's by now
	default:
	}
	// The whole group: nothing that the child started may stay behind.
	if err := syscall.Kill(-p.PID(), syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	<-p.done
	return nil
}

// lastWords is the end of what this child, and none before it, wrote into its log.
func (p *process) lastWords() string {
	log, err := os.Open(p.logPath)
	if err != nil {
		return ""
	}
	defer func() { _ = log.Close() }()
	info, err := log.Stat()
	if err != nil {
		return ""
	}
	start := max(p.logStart, info.Size()-logTailBytes)
	tail, err := io.ReadAll(io.NewSectionReader(log, start, info.Size()-start))
	if err != nil {
		return ""
	}
	if start > p.logStart {
		_, tail, _ = bytes.Cut(tail, []byte("\n")) // the first line is cut off somewhere
	}
	text := strings.TrimSpace(string(tail))
	if text == "" {
		return ""
	}
	return "; " + p.logPath + " ends with:\n" + text
}

// openLog opens a log for appending. One that has grown large is set aside first, so that no more than two
// are kept.
func openLog(path string) (*os.File, error) {
	info, err := os.Stat(path)
	if err == nil && info.Size() > logMaxBytes {
		err = os.Rename(path, path+".1")
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, privateFileMode)
	if err != nil {
		return nil, err
	}
	if err := file.Chmod(privateFileMode); err != nil { // an earlier version left it open to all
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}
