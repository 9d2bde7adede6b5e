import { MAX_UPLOAD_BYTES, MAX_UPLOAD_DOCUMENTS, type SourceDocument } from '#contracts/corpus.ts'

/** Room for the braces and the name around the documents. */
const ENVELOPE_BYTES = 64

/**
 * Parts documents into uploads that the API takes, in their order. A document that alone exceeds an upload is in one of
 * its own, and refused there: `collectFolder` returns none.
 */
export function toUploads(documents: readonly SourceDocument[]): readonly (readonly SourceDocument[])[] {
  const uploads: SourceDocument[][] = []
  let current: SourceDocument[] = []
  let bytes = ENVELOPE_BYTES
  for (const document of documents) {
    const size = Buffer.byteLength(JSON.stringify(document)) + 1
    if (current.length >= MAX_UPLOAD_DOCUMENTS || (current.length > 0 && bytes + size > MAX_UPLOAD_BYTES)) {
      uploads.push(current)
      current = []
      bytes = ENVELOPE_BYTES
    }
    current.push(document)
    bytes += size
  }
  return current.length > 0 ? [...uploads, current] : uploads
}
