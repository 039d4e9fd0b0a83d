// Package lpfileshare sends files into LivePerson conversations and reads them back, through an lpfileshare server.
//
//	c, err := lpfileshare.Dial("127.0.0.1:50051")
//	...
//	defer c.Close()
//	session, err := c.SignInConsumer(ctx, &pb.SignInConsumerRequest{...})
//	consumer := c.As(lpfileshare.ConsumerToken(lpfileshare.NewConsumerTokens(account, session, nil)))
//	resp, err := consumer.UploadFile(ctx, lpfileshare.UploadOptions{Conversation: name}, "cat.jpg")
//	...
//	for f, err := range consumer.Files(ctx, lpfileshare.FilesOptions{Parent: name}).All() {
//		...
//	}
//
// What it adds to the generated clients, which [Client.Raw] returns:
//
//   - It adds the caller's identity, exactly one metadata key, to the calls that need one and to no others.
//   - It sends the size and checksums of a file before the file, if the source can be read twice, and a checksum with every chunk.
//   - It waits up to 5 seconds for the server to accept an upload before it sends bytes, and returns the status of the call where
//     gRPC's Send returns io.EOF.
//   - It applies the retry rule of the contract (see error_reason.proto). An upload is repeated under one request id, so it is never
//     published twice. A download continues from the next byte, and a watch from its last token.
//   - It verifies every byte of a download, and reports success only after the trailer.
//   - It returns errors as [*Error], which are written for people and still convert to a gRPC status with status.FromError.
//
// It does not keep files in memory, resume an upload in the middle of a file (the contract cannot), or store tokens.
//
// A Client is safe for concurrent use. The caller closes it, and every reader and writer passed to it: Upload and Download never
// close theirs.
package lpfileshare
