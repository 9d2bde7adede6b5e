import { createHash } from 'node:crypto'
import type { SourceDocument } from '#contracts/corpus.ts'
import { toUploads } from '#tools/uploads.ts'
import type { PurserClient } from '#client/purser-client.ts'

export interface UploadOptions {
  /** Called before each upload. */
  readonly onUpload?: (progress: { readonly done: number; readonly total: number }) => void
}

export interface UploadedCorpus {
  readonly corpusId: string
  /** Whether these very documents were there already. */
  readonly isKnown: boolean
}

/**
 * Makes a corpus of these documents, or finds the one that this project has of them. The digest of the documents is the
 * idempotency key of every request: an upload that broke off goes on where it stopped, and a second one adds nothing.
 */
export async function uploadCorpus(
  api: PurserClient,
  documents: readonly SourceDocument[],
  { onUpload }: UploadOptions = {},
): Promise<UploadedCorpus> {
  const digest = digestOf(documents)
  const uploads = toUploads(documents)
  const { body: corpus, isReplayed } = await api.postOnce('/corpora', {
    params: { header: { 'idempotency-key': `corpus-${digest}` } },
    body: { name: `${documents.length} documents, ${digest.slice(0, 12)}` },
  })
  const send = async (index: number): Promise<boolean> => {
    const sent = await api.postOnce('/corpora/{id}/documents', {
      params: { path: { id: corpus.id }, header: { 'idempotency-key': `documents-${digest}-${index}` } },
      body: { documents: (uploads[index] ?? []).map(titled) },
    })
    return sent.isReplayed
  }
  // They are sent in order, so one that has the last one has them all.
  if (isReplayed && (await send(uploads.length - 1))) return { corpusId: corpus.id, isKnown: true }
  for (const index of uploads.keys()) {
    onUpload?.({ done: index, total: uploads.length })
    await send(index)
  }
  return { corpusId: corpus.id, isKnown: false }
}

function titled({ source, title, text }: SourceDocument) {
  return { source, text, ...(title !== undefined && { title }) }
}

function digestOf(documents: readonly SourceDocument[]): string {
  const hash = createHash('sha256')
  for (const { source, title, text } of documents) hash.update(JSON.stringify([source, title, text]))
  return hash.digest('hex')
}
