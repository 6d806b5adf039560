package main

import "runtime/debug"

// The linker sets both, see the Makefile. Without it, as after `go install`, they come from what Go
// recorded in the program.
var (
	version = ""
	commit  = "" // empty where it is not known
)

func init() {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	version, commit = identify(version, commit, info)
}

// identify completes what the linker set with what Go recorded. A version is never empty.
func identify(version, commit string, info *debug.BuildInfo) (string, string) {
	const shown = 12 // digits of a commit
	if version == "" && info.Main.Version != "(devel)" {
		version = info.Main.Version
	}
	if version == "" {
		version = "dev"
	}
	if commit == "" {
		for _, setting := range info.Settings {
			if setting.Key == "vcs.revision" {
				commit = setting.Value[:min(shown, len(setting.Value))]
			}
		}
	}
	return version, commit
}

// fullVersion names the commit too, where it is known.
func fullVersion() string {
	if commit == "" {
		return version
	}
	return version + " (commit " + commit + ")"
}
