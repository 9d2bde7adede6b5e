/** A piece of a source that the messages offer for quoting. */
export interface Passage {
  /** As the messages name it; null for text that came without a name and cannot be cited. */
  readonly id: string | null
  readonly source: string
  readonly title: string
  readonly text: string
}

const PASSAGE =
  /<passage\b((?:[^<>"']|"[^"]{0,2000}"|'[^']{0,2000}')*)>([\s\S]*?)(?:<\/passage\s*>|(?=<passage\b)|$)/giu
const ATTRIBUTE = /([\w:-]+)\s*=\s*(?:"([^"]*)"|'([^']*)')/gu
const QUESTION = /<question\b[^>]*>([\s\S]*?)(?:<\/question\s*>|$)/iu
const ENTITIES: ReadonlyMap<string, string> = new Map([
  ['&lt;', '<'],
  ['&gt;', '>'],
  ['&quot;', '"'],
  ['&apos;', "'"],
  ['&#39;', "'"],
  ['&amp;', '&'],
])

/** All `<passage id="…" source="…" title="…">` blocks of the texts, in order, each id and text once. */
export function findPassages(texts: readonly string[]): readonly Passage[] {
  const passages = new Map<string, Passage>()
  for (const text of texts) {
    for (const match of text.matchAll(PASSAGE)) {
      const attributes = readAttributes(match[1] ?? '')
      const body = match[2] ?? ''
      const id = attributes.get('id') ?? null
      const key = JSON.stringify([id, body])
      if (passages.has(key)) continue
      passages.set(key, {
        id,
        source: attributes.get('source') ?? '',
        title: attributes.get('title') ?? '',
        text: body,
      })
    }
  }
  return [...passages.values()]
}

/** What a message says around its passages. */
export function withoutPassages(text: string): string {
  return text.replaceAll(PASSAGE, '\n').trim()
}

/** The content of `<question>…</question>`, or null when the text has none. */
export function markedQuestion(text: string): string | null {
  const found = QUESTION.exec(withoutPassages(text))?.[1]?.trim()
  return found === undefined || found === '' ? null : found
}

function readAttributes(text: string): ReadonlyMap<string, string> {
  const attributes = new Map<string, string>()
  for (const match of text.matchAll(ATTRIBUTE)) {
    const value = match[2] ?? match[3] ?? ''
    const decoded = value.replaceAll(/&(?:lt|gt|quot|apos|#39|amp);/gu, (entity) => ENTITIES.get(entity) ?? entity)
    attributes.set((match[1] ?? '').toLowerCase(), decoded)
  }
  return attributes
}
