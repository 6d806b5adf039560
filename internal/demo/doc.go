// Package demo lets callers race for one limit, by the usual ways to keep it and
// by Earmark, and tells what each way came to. The usual ways run for real, on a
// scratch table; Earmark runs over its HTTP API.
package demo
