// Package demo lets callers race for one limit, with the usual strategies and with Earmark,
// and reports the outcome of each. The usual strategies really run, on a scratch table;
// Earmark runs over its HTTP API.
package demo
