import { MAX_VALUE_BYTES } from '#contracts/activities.ts'
import { MAX_PASSAGES, type Passage } from '#contracts/corpus.ts'
import type { Citation, Note, ToolCatalog } from '#contracts/tools.ts'
import { z } from 'zod'
import { shortOrigin } from './origin.ts'
import { parseInput, type Tool, type ToolContext } from './tool.ts'

/** Ten readings of six notes. */
const MAX_NOTES = 64
/** Shorter quotes stand in any text: "the", "400". */
const MIN_QUOTE_LENGTH = 8

const inputSchema = z.strictObject({
  corpusId: z.uuid(),
  /** As a model wrote them: neither the passage nor the quote need exist. */
  notes: z.array(z.strictObject({ passage: z.string().max(200), quote: z.string().max(4000) })).max(MAX_NOTES),
})

type Notes = z.output<typeof inputSchema>['notes']

/**
 * The registry of citations, built by code: a note becomes a citation only when its passage is in this corpus and its
 * quote stands in that passage word for word. Line breaks, Markdown marks and the shape of quotation marks may differ.
 * A quote within an earlier one of the same passage is the same citation. The payload has the registry with full names,
 * and its quotes as passages whose ids are the citations' numbers.
 */
export const citeTool: Tool<'cite'> = {
  name: 'cite',
  async run(input, context) {
    const { corpusId, notes } = parseInput(inputSchema, input)
    const passages = await fetchPassages(corpusId, notes, context)
    const supported = notes.filter((note) => isSupported(note, passages.get(note.passage)))
    const value = fitValue({
      citations: numberCitations(supported, passages),
      rejected: notes.length - supported.length,
    })
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
}

async function fetchPassages(
  corpusId: string,
  notes: Notes,
  { store, signal }: ToolContext,
): Promise<ReadonlyMap<string, Passage>> {
  const ids = Array.from(new Set(notes.map((note) => note.passage)))
  const found = new Map<string, Passage>()
  for (let from = 0; from < ids.length; from += MAX_PASSAGES) {
    signal.throwIfAborted()
    const passages = await store.fetch({ corpusId, passageIds: ids.slice(from, from + MAX_PASSAGES) })
    for (const passage of passages) found.set(passage.id, passage)
  }
  return found
}

function isSupported({ quote }: Note, passage: Passage | undefined): boolean {
  const words = normalise(quote)
  return passage !== undefined && words.length >= MIN_QUOTE_LENGTH && normalise(passage.text).includes(words)
}

function numberCitations(notes: Notes, passages: ReadonlyMap<string, Passage>): readonly Citation[] {
  const citations: Citation[] = []
  for (const { passage: passageId, quote } of notes) {
    const passage = passages.get(passageId)
    const words = normalise(quote)
    const isKnown = citations.some((each) => each.passageId === passageId && normalise(each.quote).includes(words))
    if (passage && !isKnown) citations.push({ n: citations.length + 1, passageId, ...shortOrigin(passage), quote })
  }
  return citations
}

/** Leaves the last citations out until the registry is small enough for a workflow's history. */
function fitValue(value: ToolCatalog['cite']['value']): ToolCatalog['cite']['value'] {
  let { citations } = value
  while (citations.length > 0 && Buffer.byteLength(JSON.stringify({ ...value, citations })) > MAX_VALUE_BYTES) {
    citations = citations.slice(0, -1)
  }
  return { ...value, citations }
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
