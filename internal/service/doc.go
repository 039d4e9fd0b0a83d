// Package service is lpfileshare.v1 as a gRPC server: it checks what callers ask, does the steps in their order, and says what
// came of it in the contract's words.
//
// It sees LivePerson, the store, the ledger of request ids and the previewer only through the interfaces in ports.go, and knows
// neither WebSocket frames nor HTTP. Every error that leaves a handler names a condition (share.Kind); status.go alone turns
// those into gRPC statuses.
//
// An upload reads in this order: upload.go (the call), spec.go (what is asked), admission.go (room for it), attempt.go (its
// record under the request id), receive.go (bytes into the spool), store.go (the spool into the store), publish.go (the
// message). A download is download.go.
package service
