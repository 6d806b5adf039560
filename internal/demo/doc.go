// Package demo lets callers race for one limit, by the usual ways to keep it and
// by Earmark, and reports the outcome of each. The usual ways run for real, on a
// scratch table; Earmark runs over its HTTP API.
package demo
