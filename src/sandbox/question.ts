import type { CountedMessage } from './tokens.ts'
import type { Passage } from './passages.ts'
import type { Word } from './terms.ts'
import { findPassages, markedQuestion, withoutPassages } from './passages.ts'
import { contentWords } from './terms.ts'

/** What is asked, as terms that can be looked for. */
export interface Question {
  readonly text: string
  /** Distinct content words in order. The first stem of each is the one to look for. */
  readonly words: readonly Word[]
  /** The words of each part of a question such as "how is X done and what does Y cost?". */
  readonly parts: readonly (readonly Word[])[]
}

/** What the messages ask, and what they offer to answer it from. */
export interface Conversation {
  readonly question: Question
  readonly passages: readonly Passage[]
  /** False when the passages are only what was said before, which has no names to cite. */
  readonly isCitable: boolean
}

/** A message longer than this that asks nothing is itself the text to work on. */
const LONG_MESSAGE_WORDS = 60
const PART_SEPARATOR = /[?;,:]|(?<=\s)(?:and|or|but|then|as well as|plus|whereas)(?=\s)/iu

export function readConversation(messages: readonly CountedMessage[]): Conversation {
  const passages = findPassages(messages.map((message) => message.text))
  const users = messages.filter((message) => message.role === 'user').toReversed()
  const marked = users.map((message) => markedQuestion(message.text)).find((text) => text !== null)
  if (passages.length > 0) {
    const outside = users.map((message) => withoutPassages(message.text)).find((text) => text !== '') ?? ''
    return { question: toQuestion(marked ?? coreOf(outside)), passages, isCitable: true }
  }

  const last = withoutPassages(users[0]?.text ?? '')
  const asked = marked ?? questionsIn(last) ?? last
  const isLongText = marked === undefined && asked === last && last.split(/\s+/u).length > LONG_MESSAGE_WORDS
  const offered = messages.map((message) => {
    if (isLongText || !message.text.includes(asked)) return withoutSentences(message.text, isLongText ? '' : asked)
    return message.text.replace(asked, ' ')
  })
  return {
    question: toQuestion(isLongText ? '' : asked),
    passages: offered.filter((text) => text.trim() !== '').map((text) => ({ id: null, source: '', title: '', text })),
    isCitable: false,
  }
}

function toQuestion(text: string): Question {
  return {
    text,
    words: distinct(contentWords(text)),
    parts: text
      .split(PART_SEPARATOR)
      .map((part) => distinct(contentWords(part)))
      .filter((words) => words.length > 0),
  }
}

/** The question inside a longer instruction: what follows `Question:`, else its sentences that end on a question mark. */
function coreOf(text: string): string {
  const labelled = /^\s*(?:#+\s*|\*\*)?question(?:\*\*)?\s*:(?:\*\*)?\s*([\s\S]+?)(?:\n\s*\n|$)/imu.exec(text)?.[1]
  if (labelled !== undefined) return labelled.trim()
  return questionsIn(text) ?? text
}

function questionsIn(text: string): string | null {
  const questions = text.split(/\n+|(?<=[.!?])\s+/u).filter((sentence) => sentence.trimEnd().endsWith('?'))
  return questions.length === 0 ? null : questions.map((question) => question.trim()).join(' ')
}

function withoutSentences(text: string, asked: string): string {
  if (asked === '') return text
  return asked.split(/(?<=\?)\s/u).reduce((rest, sentence) => rest.replace(sentence, ' '), text)
}

function distinct(words: readonly Word[]): readonly Word[] {
  const seen = new Set<string>()
  return words.filter((word) => {
    const stem = word.stems[0] ?? ''
    if (stem === '' || seen.has(stem)) return false
    seen.add(stem)
    return true
  })
}
