import { MAX_VALUE_BYTES } from '#contracts/activities.ts'
import { type CorpusStore, MAX_PASSAGES, type Passage } from '#contracts/corpus.ts'
import type { Citation, Note, RejectedNote, Tool } from '#contracts/tools.ts'
import { z } from 'zod'
import { defineTool } from './define-tool.ts'
import { shortOrigin } from './origin.ts'

/** Ten readings of six notes. */
const MAX_NOTES = 64
/** Shorter quotes stand in any text: "the", "400". */
const MIN_QUOTE_LENGTH = 8
const MAX_NAME_LENGTH = 40

const inputSchema = z.strictObject({
  corpusId: z.uuid(),
  /** As a model wrote them: neither the passage nor the quote need exist. */
  notes: z.array(z.strictObject({ passage: z.string().max(200), quote: z.string().max(4000) })).max(MAX_NOTES),
})

interface Registry {
  readonly citations: readonly Citation[]
  readonly rejected: readonly RejectedNote[]
}

/**
 * The registry of citations, built by code: a note becomes a citation only when its passage is in this corpus and its
 * quote stands in that passage word for word. Line breaks, Markdown marks and the shape of quotation marks may differ.
 * The payload has the registry with full names, and its quotes as passages whose ids are the citations' numbers.
 */
export function createCiteTool(store: CorpusStore): Tool {
  return defineTool({
    name: 'cite',
    input: inputSchema,
    async run({ corpusId, notes }) {
      const passages = await fetchPassages(store, corpusId, notes)
      const value = fitValue(buildRegistry(notes, passages))
      const citations = value.citations.map((citation) => ({
        ...citation,
        ...originOf(passages.get(citation.passageId)),
      }))
      return {
        value,
        payload: {
          passages: citations.map(({ n, source, title, quote }) => ({ id: String(n), source, title, text: quote })),
          citations,
        },
      }
    },
  })
}

async function fetchPassages(
  store: CorpusStore,
  corpusId: string,
  notes: readonly Note[],
): Promise<ReadonlyMap<string, Passage>> {
  const ids = Array.from(new Set(notes.map((note) => note.passage)))
  const found = new Map<string, Passage>()
  for (let from = 0; from < ids.length; from += MAX_PASSAGES) {
    const passages = await store.fetch({ corpusId, passageIds: ids.slice(from, from + MAX_PASSAGES) })
    for (const passage of passages) found.set(passage.id, passage)
  }
  return found
}

function buildRegistry(notes: readonly Note[], passages: ReadonlyMap<string, Passage>): Registry {
  const citations: Citation[] = []
  const rejected: RejectedNote[] = []
  for (const { passage: id, quote } of notes) {
    const passage = passages.get(id)
    const reason = reasonAgainst(quote, passage, citations)
    if (passage === undefined || reason !== undefined) {
      rejected.push({ passage: id.slice(0, MAX_NAME_LENGTH), reason: reason ?? 'unknown_passage' })
    } else {
      citations.push({ n: citations.length + 1, passageId: id, ...shortOrigin(passage), quote })
    }
  }
  return { citations, rejected }
}

function reasonAgainst(
  quote: string,
  passage: Passage | undefined,
  citations: readonly Citation[],
): 'unknown_passage' | 'too_short' | 'not_verbatim' | 'duplicate' | undefined {
  if (passage === undefined) return 'unknown_passage'
  const words = normalise(quote)
  if (words.length < MIN_QUOTE_LENGTH) return 'too_short'
  if (!normalise(passage.text).includes(words)) return 'not_verbatim'
  const isKnown = citations.some((each) => each.passageId === passage.id && normalise(each.quote).includes(words))
  return isKnown ? 'duplicate' : undefined
}

/** Takes the last citations out until the registry is small enough for a workflow's history. */
function fitValue(registry: Registry): Registry {
  let { citations, rejected } = registry
  while (Buffer.byteLength(JSON.stringify({ citations, rejected })) > MAX_VALUE_BYTES && citations.length > 0) {
    rejected = [...rejected, { passage: citations.at(-1)?.passageId ?? '', reason: 'no_room' }]
    citations = citations.slice(0, -1)
  }
  return { citations, rejected }
}

function originOf(passage: Passage | undefined): { readonly source?: string; readonly title?: string } {
  return passage === undefined ? {} : { source: passage.source, title: passage.title }
}

function normalise(text: string): string {
  return text
    .replaceAll(/[“”„«»]/g, '"')
    .replaceAll(/[‘’]/g, "'")
    .replaceAll(/^\s*(?:>\s*)*(?:[-*+]\s+|\d+[.)]\s+|#{1,6}\s+)?/gm, ' ')
    .replaceAll(/[*_`|]/g, '')
    .replaceAll(/\s+/g, ' ')
    .trim()
}
