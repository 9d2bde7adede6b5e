import type { JsonSchemaFormat, ResponseFormat } from './request.ts'
import type { Conversation } from './question.ts'
import type { CountedMessage } from './tokens.ts'
import type { Support, SupportingSentence } from './support.ts'
import { readConversation } from './question.ts'
import { fillSchema } from './schema-fill.ts'
import { findSupport, MAX_SENTENCES } from './support.ts'
import { countTokens } from './tokens.ts'

/** The exact answer when nothing in the passages supports one. */
const NOT_FOUND = 'NOT FOUND'

const KEY_TERMS = 6

export interface CompletionTask {
  readonly messages: readonly CountedMessage[]
  readonly format: ResponseFormat
  /** What the answer may take; it is shortened by whole sentences to fit, and cut by the caller when even one is too long. */
  readonly maxTokens: number
  /** Which answer of several to the same messages: each further one quotes a sentence less. Left out: the first. */
  readonly choice?: number
}

/** Answers from the messages alone, by quoting them. The same task has the same answer. */
export function complete(task: CompletionTask): string {
  const conversation = readTask(task.messages)
  const support = findSupport(conversation)
  const most = Math.max(1, Math.min(MAX_SENTENCES, support.sentences.length) - (task.choice ?? 0))
  let text = ''
  for (let limit = most; limit >= 1; limit -= 1) {
    text = render(task.format, conversation, { ...support, sentences: support.sentences.slice(0, limit) })
    if (countTokens(text) <= task.maxTokens) break
  }
  return text
}

/** A conversation that may have ended with the results of tools: then they are what to answer from. */
interface TaskConversation extends Conversation {
  readonly toolResults: string
}

function readTask(messages: readonly CountedMessage[]): TaskConversation {
  const conversation = readConversation(messages)
  const results = messages.slice(messages.findLastIndex((message) => message.role !== 'tool') + 1)
  const texts = results.map((message) => message.text.trim()).filter((text) => text !== '')
  const toolResults = texts.join('\n')
  if (texts.length === 0 || conversation.isCitable) return { ...conversation, toolResults }
  return { ...conversation, toolResults, passages: texts.map((text) => ({ id: null, source: '', title: '', text })) }
}

function render(format: ResponseFormat, conversation: TaskConversation, support: Support): string {
  if (format.kind === 'text') return answerText(conversation, support)
  if (format.kind === 'json_object') return JSON.stringify({ answer: answerText(conversation, support) })
  return renderSchema(format, conversation, support)
}

function renderSchema(format: JsonSchemaFormat, conversation: TaskConversation, support: Support): string {
  const answer = answerText(conversation, support)
  return JSON.stringify(fillSchema(format, { question: conversation.question, support, answer }))
}

/** The sentences of one passage stay together, in its order; each carries its passage's id. */
function answerText(conversation: TaskConversation, support: Support): string {
  if (!support.isFound && conversation.toolResults !== '') return conversation.toolResults
  if (!support.isFound) return conversation.isCitable ? NOT_FOUND : keyTerms(conversation)
  const passages = [...new Set(support.sentences.map((sentence) => sentence.passage))]
  const ordered = passages.flatMap((passage) =>
    support.sentences
      .filter((sentence) => sentence.passage === passage)
      .toSorted((left, right) => left.position - right.position),
  )
  const prose = ordered.filter((sentence) => sentence.kind === 'prose').map(quote)
  const items = ordered.filter((sentence) => sentence.kind === 'item').map((sentence) => `- ${quote(sentence)}`)
  return [prose.join(' '), items.join('\n')].filter((part) => part !== '').join('\n')
}

function quote(sentence: SupportingSentence): string {
  return sentence.passage.id === null ? sentence.text : `${sentence.text} [${sentence.passage.id}]`
}

function keyTerms(conversation: Conversation): string {
  const terms = conversation.question.words.slice(0, KEY_TERMS).map((word) => word.surface)
  return terms.length === 0 ? 'Nothing was asked.' : `Nothing was given to answer from about: ${terms.join(', ')}.`
}
