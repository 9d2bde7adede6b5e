import type { KitMessage, MessagePart } from '#contracts/activities.ts'

export interface RenderedMessage {
  readonly role: KitMessage['role']
  readonly content: string
}

/** What a prompt shows of a passage. */
export interface PromptPassage {
  readonly id: string
  readonly source: string
  readonly title: string
  readonly text: string
}

/** What a reference of a message may stand for. */
export type PromptContent =
  | { readonly kind: 'passages'; readonly passages: readonly PromptPassage[] }
  | { readonly kind: 'text'; readonly text: string }

/** The ids of the stored payloads that messages refer to, each once. */
export function refsOf(messages: readonly KitMessage[]): readonly string[] {
  return [
    ...new Set(
      messages.flatMap((message) => message.parts.flatMap((part) => (typeof part === 'string' ? [] : [part.ref]))),
    ),
  ]
}

/** Writes messages out as text: the same messages and contents give the same request, and with it the same call key. */
export function renderMessages(
  messages: readonly KitMessage[],
  contentOf: (ref: string) => PromptContent,
): readonly RenderedMessage[] {
  const write = (part: MessagePart): string => (typeof part === 'string' ? part : renderContent(contentOf(part.ref)))
  return messages.map(({ role, parts }) => ({ role, content: parts.map(write).join('') }))
}

function renderContent(content: PromptContent): string {
  return content.kind === 'text' ? content.text : content.passages.map(renderPassage).join('\n')
}

/** @example <passage id="7" source="docs/a.md" title="Timeouts">A server waits …</passage> */
export function renderPassage(passage: PromptPassage): string {
  const attributes = `id="${attribute(passage.id)}" source="${attribute(passage.source)}" title="${attribute(passage.title)}"`
  return `<passage ${attributes}>${passage.text.replaceAll(PASSAGE_TAG, '&lt;$1')}</passage>`
}

/** A document must not be able to end its own passage; all else stays verbatim, so that it can be quoted verbatim. */
const PASSAGE_TAG = /<(\/?passage)/gi

const ENTITIES: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' }

function attribute(text: string): string {
  return text.replaceAll(/[&<>"]/g, (character) => ENTITIES[character] ?? character).replaceAll(/\s+/g, ' ')
}
