// Package service implements lpfileshare.v1 as a gRPC server: it validates requests, drives streams, and translates results and
// errors. The work is done by engines that know no gRPC: packages upload, download and conversations.
//
// It sees LivePerson, the store, the ledger of request ids and images only through the interfaces in ports.go. Every error that
// leaves a handler names a condition (share.Kind). status.go alone turns conditions into gRPC statuses.
//
// An upload begins in upload.go (the call), spec.go (validation) and source.go (the messages), and continues in package upload.
package service
