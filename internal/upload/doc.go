// Package upload stores a file and publishes it in a LivePerson conversation, exactly once. It knows no gRPC: package service
// turns calls into a Spec and a Source, and results and errors into responses.
//
// An upload in reading order: Engine.Upload (engine.go) reserves memory, opens the caller's session and claims the request id
// (claim.go). The bytes go from the Source into the spool (receive.go, spool.go), past the inspectors (inspect.go). A transform
// may change the whole file (transform.go). Meanwhile, or after that, the file is stored (store.go). Last, it is published
// (publish.go). Every step is recorded in the ledger (record.go), so that a retry on any server continues or repeats the result.
package upload
