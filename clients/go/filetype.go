package lpfileshare

import (
	"errors"
	"fmt"
	"path"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// sniffBytes is the number of first bytes that DetectFileType uses.
const sniffBytes = share.SniffBytes

// DetectFileType returns the type of a file by its first bytes (512 are enough) and, if several types have the same first bytes, by
// the extension of its name. The bytes take precedence, because the server rejects a file whose bytes do not match its type. It
// returns unspecified for any other file, also for one whose bytes show a type that LivePerson does not accept, such as HEIC.
func DetectFileType(name string, head []byte) pb.FileType {
	if _, foreign := share.FindForeignFormat(head); foreign {
		return pb.FileType_FILE_TYPE_UNSPECIFIED
	}
	byName, named := share.FileTypeByExtension(path.Ext(name))
	byFormat, unique := share.FileTypeByFormat(share.SniffFormat(head, true))
	switch {
	case unique && len(byFormat.Signatures) > 0:
		return contractType(byFormat)
	case named:
		return contractType(byName)
	case unique && len(head) > 0: // text, which has no signature, under a name that says nothing
		return contractType(byFormat)
	}
	return pb.FileType_FILE_TYPE_UNSPECIFIED
}

// undetected returns why DetectFileType returned unspecified for these first bytes.
func undetected(head []byte) error {
	if f, ok := share.FindForeignFormat(head); ok {
		return fmt.Errorf("it is %s", f)
	}
	return errors.New("the file type cannot be detected from the bytes or the name; set FileType, or a DisplayName with an extension")
}

func contractType(row share.FileTypeInfo) pb.FileType {
	return pb.FileType(pb.FileType_value[row.ContractName()])
}
