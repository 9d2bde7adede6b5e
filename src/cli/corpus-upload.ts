import { createHash } from 'node:crypto'
import { corpusSchema, type SourceDocument } from '#contracts/corpus.ts'
import { toUploads } from '#tools/uploads.ts'
import { z } from 'zod'
import type { ApiClient } from './api-client.ts'

const uploadedSchema = z.object({ passagesAdded: z.int() })

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
  api: ApiClient,
  documents: readonly SourceDocument[],
  { onUpload }: UploadOptions = {},
): Promise<UploadedCorpus> {
  const digest = digestOf(documents)
  const uploads = toUploads(documents)
  const { body: corpus, isReplayed } = await api.post('/corpora', {
    body: { name: `${documents.length} documents, ${digest.slice(0, 12)}` },
    schema: corpusSchema,
    idempotencyKey: `corpus-${digest}`,
  })
  const send = async (index: number): Promise<boolean> => {
    const sent = await api.post(`/corpora/${corpus.id}/documents`, {
      body: { documents: uploads[index] },
      schema: uploadedSchema,
      idempotencyKey: `documents-${digest}-${index}`,
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

function digestOf(documents: readonly SourceDocument[]): string {
  const hash = createHash('sha256')
  for (const { source, title, text } of documents) hash.update(JSON.stringify([source, title, text]))
  return hash.digest('hex')
}
