package service

import (
	"slices"

	lpfilesharev1 "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// fileTypeFromProto returns the type of a contract value; false for a value that is not in the table of share.FileTypes.
func fileTypeFromProto(t lpfilesharev1.FileType) (share.FileType, bool) {
	row, ok := share.FileTypeByContractName(t.String())
	return row.Type, ok
}

// fileTypeToProto returns the contract value for the spelling in a message; unspecified if the spelling is not known.
func fileTypeToProto(spelling string) lpfilesharev1.FileType {
	row, ok := share.FileTypeBySpelling(spelling)
	if !ok {
		return lpfilesharev1.FileType_FILE_TYPE_UNSPECIFIED
	}
	return protoOf(row)
}

// contentType returns the media type for the spelling in a message. Empty if the contract does not have the type.
func contentType(spelling string) string {
	row, _ := share.FileTypeBySpelling(spelling)
	return row.MediaType
}

func protoOf(row share.FileTypeInfo) lpfilesharev1.FileType {
	return lpfilesharev1.FileType(lpfilesharev1.FileType_value[row.ContractName()])
}

// allowedTypes returns the types that may be uploaded, in the order of the contract.
func allowedTypes(documents []share.FileType) []lpfilesharev1.FileType {
	var types []lpfilesharev1.FileType
	for _, row := range share.FileTypes() {
		if row.Image || slices.Contains(documents, row.Type) {
			types = append(types, protoOf(row))
		}
	}
	return types
}
