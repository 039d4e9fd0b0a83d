// Package harness has what the suites that run a server share: a server before a sandbox, in the test's process or as one of its
// own, callers of it, and calls that are repeated. The sandbox's frames are checked against the schemas of test/wire.
package harness
