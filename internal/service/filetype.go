package service

import (
	"slices"

	lpfilesharev1 "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// fileTypeFromProto returns the file type of a contract value; false for FILE_TYPE_UNSPECIFIED and unknown values.
func fileTypeFromProto(t lpfilesharev1.FileType) (share.FileType, bool) {
	info, ok := share.FileTypeByContractName(t.String())
	return info.Type, ok
}

// fileTypeToProto returns the contract value of a type as written in a message.
func fileTypeToProto(spelling string) lpfilesharev1.FileType {
	info, _ := share.FileTypeBySpelling(spelling)
	return lpfilesharev1.FileType(lpfilesharev1.FileType_value[info.ContractName()])
}

// contentType returns the media type of a type as written in a message. Empty if the contract does not have the type.
func contentType(spelling string) string {
	info, _ := share.FileTypeBySpelling(spelling)
	return info.MediaType
}

// allowedTypes returns the types that an account allows: images, and the given documents.
func allowedTypes(documents []share.FileType) []lpfilesharev1.FileType {
	var types []lpfilesharev1.FileType
	for _, info := range share.FileTypes() {
		if info.Image || slices.Contains(documents, info.Type) {
			types = append(types, lpfilesharev1.FileType(lpfilesharev1.FileType_value[info.ContractName()]))
		}
	}
	return types
}
