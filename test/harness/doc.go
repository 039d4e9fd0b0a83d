// Package harness has what the suites that run a server share: starting it with a sandbox, signing callers in, and repeating calls.
package harness
