package payloads

import (
	"fmt"

	commonpb "go.temporal.io/api/common/v1"
	failurepb "go.temporal.io/api/failure/v1"
	"go.temporal.io/api/proxy"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// What an encrypted payload says about itself.
const (
	encryptedEncoding = "binary/encrypted"
	metadataKeyID     = "encryption-key-id"
)

// encodedFailure is the text of a failure whose own text is in its encoded attributes.
const encodedFailure = "Encoded failure"

var _ converter.PayloadCodec = (*Keys)(nil)

// Encode encrypts the payloads with the first key. It leaves alone what is encrypted: the SDK sends a message again that
// it has encoded before.
func (k *Keys) Encode(plain []*commonpb.Payload) ([]*commonpb.Payload, error) {
	encoded := make([]*commonpb.Payload, len(plain))
	for i, payload := range plain {
		if isEncrypted(payload) || !k.encrypts() {
			encoded[i] = payload
			continue
		}
		text, err := proto.Marshal(payload)
		if err != nil {
			return nil, err
		}
		encoded[i] = &commonpb.Payload{
			Metadata: map[string][]byte{converter.MetadataEncoding: []byte(encryptedEncoding), metadataKeyID: []byte(k.first)},
			Data:     k.byID[k.first].Seal(nil, nil, text, []byte(k.first)), //nolint:gosec // the cipher adds a random nonce
		}
	}
	return encoded, nil
}

// Decode decrypts the payloads, and leaves alone what is not encrypted: histories of before, and messages of other clients.
// An error names the key that is missing, or says that a payload was changed.
func (k *Keys) Decode(encoded []*commonpb.Payload) ([]*commonpb.Payload, error) {
	plain := make([]*commonpb.Payload, len(encoded))
	for i, payload := range encoded {
		if !isEncrypted(payload) {
			plain[i] = payload
			continue
		}
		id := string(payload.GetMetadata()[metadataKeyID])
		key := k.byID[id]
		if key == nil {
			return nil, fmt.Errorf("a payload is encrypted with the key %.16q, which is not in the file of keys", id)
		}
		text, err := key.Open(nil, nil, payload.GetData(), []byte(id))
		if err != nil {
			return nil, fmt.Errorf("a payload does not decrypt with the key %s: it was changed, or another key has this id", id)
		}
		plain[i] = &commonpb.Payload{}
		if err := proto.Unmarshal(text, plain[i]); err != nil {
			return nil, fmt.Errorf("a decrypted payload does not decode: %w", err)
		}
	}
	return plain, nil
}

func isEncrypted(payload *commonpb.Payload) bool {
	return string(payload.GetMetadata()[converter.MetadataEncoding]) == encryptedEncoding
}

// Apply makes a client, and the workers made with it, encrypt all that they send to Temporal and decrypt all that they get.
// It works on the messages on the wire, so that what reads raw histories has them in plain text too.
func (k *Keys) Apply(options *client.Options) error {
	texts, err := proxy.NewFailureVisitorInterceptor(proxy.FailureVisitorInterceptorOptions{
		Outbound: &proxy.VisitFailuresOptions{Visitor: func(_ *proxy.VisitFailuresContext, failure *failurepb.Failure) error { return k.hideText(failure) }},
		Inbound: &proxy.VisitFailuresOptions{Visitor: func(_ *proxy.VisitFailuresContext, failure *failurepb.Failure) error {
			converter.DecodeCommonFailureAttributes(converter.GetDefaultDataConverter(), failure)
			return nil
		}},
	})
	if err != nil {
		return err
	}
	encryption, err := converter.NewPayloadCodecGRPCClientInterceptor(converter.PayloadCodecGRPCClientInterceptorOptions{Codecs: []converter.PayloadCodec{k}})
	if err != nil {
		return err
	}
	options.ConnectionOptions.DialOptions = append(options.ConnectionOptions.DialOptions, grpc.WithChainUnaryInterceptor(texts, encryption))
	return nil
}

// hideText moves the text of a failure into a payload. It leaves alone one whose text is there: the SDK sends a message again
// that it has encoded before.
func (k *Keys) hideText(failure *failurepb.Failure) error {
	if !k.encrypts() {
		return nil
	}
	if failure.GetEncodedAttributes() != nil && failure.GetMessage() == encodedFailure {
		return nil
	}
	return converter.EncodeCommonFailureAttributes(converter.GetDefaultDataConverter(), failure)
}
