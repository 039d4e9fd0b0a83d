// Package lpfileshare shares files in LivePerson conversations by way of an lpfileshare server: an io.Reader goes in, an
// io.Writer comes out, and what streaming calls need in between is done here.
//
//	c, err := lpfileshare.Dial("127.0.0.1:50051")
//	...
//	defer c.Close()
//	session, err := c.SignInConsumer(ctx, &pb.SignInConsumerRequest{...})
//	consumer := c.As(lpfileshare.ConsumerToken(lpfileshare.NewConsumerTokens(account, session, nil)))
//	resp, err := consumer.Upload(ctx, lpfileshare.UploadOptions{Conversation: name, DisplayName: "cat.jpg"}, file)
//
// What it does over the generated clients (which are at hand as Files, Conversations, Identity and Accounts):
//
//   - It puts the caller's identity, exactly one metadata key, on the calls that need one, and on no other.
//   - It sends a file's size and checksums ahead whenever the source can be read twice, and a checksum with every chunk.
//   - It waits for the server's leave before it sends bytes, and reports the server's real answer where gRPC gives io.EOF.
//   - It repeats an upload under one request id, which never publishes twice, and goes on with a broken download or watch.
//   - It checks every byte of a download, and takes none for complete that lacks its trailer.
//   - Its errors are [*Error], made for people to read, and still gRPC statuses to status.FromError.
//
// It does not keep files in memory, resume an upload in mid-file (the contract has no such thing), or store tokens.
//
// A Client is safe for concurrent use. The caller closes it, and whatever it handed in: Upload and Download never close
// their reader and writer.
package lpfileshare
