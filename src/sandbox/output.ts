import { complete } from './completion.ts'
import type { ModelSettings, SandboxModel } from './config.ts'
import type { Faults } from './faults.ts'
import type { ModelRequest, Tool } from './request.ts'
import { type Piece, countTokens, encodeText, toPieces } from './tokens.ts'
import { chooseTool, toolCallId } from './tool-call.ts'

export type FinishReason = 'stop' | 'length' | 'tool_calls' | 'content_filter'

/** `hidden` is reasoning that is counted and not sent. */
export type PieceKind = 'text' | 'reasoning' | 'hidden' | 'arguments'

export interface OutputPiece extends Piece {
  readonly kind: PieceKind
  /** Which of several answers it is of. */
  readonly choice: number
}

/** How one answer ends. */
export interface OutputEnd {
  readonly toolCall: { readonly id: string; readonly name: string } | null
  readonly finishReason: FinishReason
  /** The stop sequence that ended it. */
  readonly stopSequence: string | null
}

/** An answer, before anything of it is sent. */
export interface Output extends OutputEnd {
  /** Of all answers, in the order in which they are sent. */
  readonly pieces: readonly OutputPiece[]
  /** The ends of further answers to the same prompt. */
  readonly others: readonly OutputEnd[]
}

export interface OutputTask {
  readonly request: ModelRequest
  readonly model: SandboxModel
  readonly settings: ModelSettings
  readonly faults: Faults
}

const NO_OUTPUT: Output = { pieces: [], toolCall: null, finishReason: 'stop', stopSequence: null, others: [] }
/** An echo is this many characters of the last message, sent a few tokens at a time. */
const ECHO_CHARACTERS = 64
const ECHO_TOKENS_PER_PIECE = 8
/** When a request asks for reasoning of a model that is set to none. */
const DEFAULT_THINKING_TOKENS = 32
/** Enough of a text for so many tokens of it. */
const CHARACTERS_PER_TOKEN = 8

/** Generates the answers that are asked for: several are sent side by side, a piece of each in turn. */
export function generateOutput(task: OutputTask): Output {
  const { choices, embedding } = task.request
  if (embedding !== null) return NO_OUTPUT
  const first = generateChoice(task, 0)
  if (choices === 1) return { ...first, others: [] }
  const others = Array.from({ length: choices - 1 }, (_, index) => generateChoice(task, index + 1))
  const all = [first, ...others]
  const longest = Math.max(...all.map(({ pieces }) => pieces.length))
  const pieces = Array.from({ length: longest }, (_, turn) => all.flatMap((each) => each.pieces[turn] ?? [])).flat()
  return { ...first, pieces, others }
}

type Choice = OutputEnd & { readonly pieces: readonly OutputPiece[] }

/** Generates an answer of at most as many tokens as the request and the model allow, reasoning included. */
function generateChoice(task: OutputTask, choice: number): Choice {
  const { request, model, faults } = task
  const maxTokens = Math.min(request.maxTokens ?? model.maxOutputTokens, model.maxOutputTokens)
  const reasoning = reasoningPieces(task, maxTokens)
  const room = maxTokens - reasoning.reduce((sum, piece) => sum + piece.tokens, 0)
  const tool = chooseTool(request)
  const place = { choice, room }
  const answer = tool === null ? answerInWords(task, place) : callTool(task, tool, place)
  const pieces = [...reasoning, ...answer.pieces].map((piece) => ({ ...piece, choice }))
  if (faults.contentFilter !== true) return { ...answer, pieces }
  return { ...NO_OUTPUT, pieces: pieces.slice(0, 1), finishReason: 'content_filter' }
}

/** Which of several answers, and how many tokens there are left for it. */
interface Place {
  readonly choice: number
  readonly room: number
}

type Unplaced = OutputEnd & { readonly pieces: readonly Omit<OutputPiece, 'choice'>[] }

function answerInWords({ request, model, faults }: OutputTask, { choice, room }: Place): Unplaced {
  const { messages, format } = request
  const isEcho = model.answers === 'echo'
  const full = isEcho ? echoOf(request) : complete({ messages, format, maxTokens: room, choice })
  const { text, stopSequence } = stopAt(full, request.stop)
  const overlong = faults.overlongTokens ?? 0
  const tokens = overlong === 0 ? encodeText(text) : repeat(encodeText(text), room + overlong)
  const pieces = toPieces(tokens.slice(0, room + overlong))
  const isCut = overlong > 0 || tokens.length > room
  return {
    pieces: (isEcho ? inGroups(pieces) : pieces).map((piece) => ({ ...piece, kind: 'text' })),
    toolCall: null,
    finishReason: isCut ? 'length' : 'stop',
    stopSequence: isCut ? null : stopSequence,
  }
}

/** The name is a piece of its own, without text, before those of the arguments. */
function callTool({ request }: OutputTask, tool: Tool, { choice, room }: Place): Unplaced {
  const { name, description, parameters: schema } = tool
  const format = { kind: 'json_schema', name, description, schema } as const
  const text = complete({ messages: request.messages, format, maxTokens: room, choice })
  const nameTokens = Math.min(room, countTokens(name))
  const tokens = encodeText(text)
  const pieces = [{ text: '', tokens: nameTokens }, ...toPieces(tokens.slice(0, room - nameTokens))]
  return {
    pieces: pieces.map((piece) => ({ ...piece, kind: 'arguments' })),
    toolCall: { id: toolCallId(name, text) + (choice === 0 ? '' : `_${choice}`), name },
    finishReason: nameTokens + tokens.length > room ? 'length' : 'tool_calls',
    stopSequence: null,
  }
}

/** Reasoning says the prompt to itself; hidden, it is one piece. */
function reasoningPieces({ request, settings }: OutputTask, maxTokens: number): Unplaced['pieces'] {
  const { reasoning } = request
  if (reasoning === 'none') return []
  const isWish = reasoning !== 'as set'
  const wished = isWish ? Math.min(reasoning.budgetTokens, settings.reasoningTokens || DEFAULT_THINKING_TOKENS) : null
  const tokens = Math.min(wished ?? settings.reasoningTokens, maxTokens)
  if (tokens === 0) return []
  if (!(isWish ? reasoning.isShown : settings.streamsReasoning)) return [{ kind: 'hidden', text: '', tokens }]
  const words = encodeText(lastWords(request).slice(0, tokens * CHARACTERS_PER_TOKEN) || 'Nothing was asked.')
  return toPieces(repeat(words, tokens)).map((piece) => ({ ...piece, kind: 'reasoning' }))
}

function echoOf(request: ModelRequest): string {
  return lastWords(request).slice(0, ECHO_CHARACTERS).toWellFormed() || 'Nothing was said.'
}

function lastWords({ messages }: ModelRequest): string {
  return messages.at(-1)?.text ?? ''
}

function stopAt(text: string, stop: readonly string[]): Pick<Output, 'stopSequence'> & { readonly text: string } {
  let found: { readonly text: string; readonly stopSequence: string } | null = null
  for (const stopSequence of stop) {
    const at = text.indexOf(stopSequence)
    if (at !== -1 && at < (found?.text.length ?? Number.POSITIVE_INFINITY)) {
      found = { text: text.slice(0, at), stopSequence }
    }
  }
  return found ?? { text, stopSequence: null }
}

function repeat(tokens: readonly number[], count: number): readonly number[] {
  const source = tokens.length === 0 ? encodeText(' more') : tokens
  return Array.from({ length: count }, (_, index) => source[index % source.length] ?? 0)
}

function inGroups(pieces: readonly Piece[]): readonly Piece[] {
  const groups: { text: string; tokens: number }[] = []
  for (const piece of pieces) {
    const last = groups.at(-1)
    if (last === undefined || last.tokens >= ECHO_TOKENS_PER_PIECE) groups.push({ ...piece })
    else {
      last.text += piece.text
      last.tokens += piece.tokens
    }
  }
  return groups
}
