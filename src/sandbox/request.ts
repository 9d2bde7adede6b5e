import type { CountedMessage } from './tokens.ts'

export interface JsonSchemaFormat {
  readonly kind: 'json_schema'
  readonly name: string
  readonly description: string
  readonly schema: Readonly<Record<string, unknown>>
}

export type ResponseFormat = { readonly kind: 'text' } | { readonly kind: 'json_object' } | JsonSchemaFormat

/** A message, or a part of one, as it is counted and quoted. */
export interface PromptMessage extends CountedMessage {
  /** Counted like the text, but nothing to quote from: the calls an assistant made. */
  readonly hidden: string
  readonly images: number
  /** The prompt up to here is to be cached. */
  readonly isMarked: boolean
  /** A further part of the message before it: it has no role of its own to count. */
  readonly isContinued: boolean
}

/** A tool of the client's own. */
export interface Tool {
  readonly name: string
  readonly description: string
  readonly parameters: Readonly<Record<string, unknown>>
}

export type ToolChoice = 'auto' | 'none' | 'required' | { readonly name: string }

/** Reasoning as the request wants it: as the model is set, none, or text of so many tokens at most. */
export type ReasoningWish = 'as set' | 'none' | { readonly budgetTokens: number; readonly isShown: boolean }

export interface EmbeddingOptions {
  readonly dimensions: number | null
  readonly isBase64: boolean
}

/** What the sandbox acts on in a request of any of its endpoints; other fields are accepted and have no effect. */
export interface ModelRequest {
  readonly model: string
  readonly messages: readonly PromptMessage[]
  /** Of any endpoint but embeddings null. */
  readonly embedding: EmbeddingOptions | null
  readonly maxTokens: number | null
  /** How many answers, each of as many tokens at most. */
  readonly choices: number
  readonly isStream: boolean
  /** A stream ends with its usage. */
  readonly includesUsage: boolean
  readonly format: ResponseFormat
  readonly tools: readonly Tool[]
  readonly areToolsMarked: boolean
  readonly toolChoice: ToolChoice
  /** Tools of the provider's own, by name: each is used once, and billed. */
  readonly ownTools: readonly string[]
  readonly stop: readonly string[]
  readonly reasoning: ReasoningWish
}

/** A request of an embedding, or the least of a chat: what an endpoint does not have. */
export const plainRequest = {
  embedding: null,
  maxTokens: null,
  choices: 1,
  isStream: false,
  includesUsage: false,
  format: { kind: 'text' },
  tools: [],
  areToolsMarked: false,
  toolChoice: 'auto',
  ownTools: [],
  stop: [],
  reasoning: 'as set',
} as const satisfies Omit<ModelRequest, 'model' | 'messages'>

export const plainMessage = { hidden: '', images: 0, isMarked: false, isContinued: false } as const
