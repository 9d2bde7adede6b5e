import type { JsonSchema } from './agents.ts'
import type { ReasoningEffort } from './names.ts'

/** An image as an https URL, or in the request itself as a data URL. */
export interface ImagePart {
  readonly type: 'image'
  readonly url: string
  readonly detail?: 'low' | 'high' | 'auto' | undefined
}

export interface TextPart {
  readonly type: 'text'
  readonly text: string
}

export interface ToolCall {
  readonly id: string
  readonly name: string
  /** JSON, as the model wrote it: it may be none. */
  readonly arguments: string
}

/** `name` tells speakers of one role apart; an API that has no place for it is not told. */
export type ChatMessage =
  | { readonly role: 'system'; readonly name?: string | undefined; readonly content: string }
  | {
      readonly role: 'user'
      readonly name?: string | undefined
      readonly content: string | readonly (TextPart | ImagePart)[]
    }
  | {
      readonly role: 'assistant'
      readonly name?: string | undefined
      readonly content: string
      readonly toolCalls?: readonly ToolCall[] | undefined
    }
  | {
      readonly role: 'tool'
      readonly toolCallId: string
      readonly content: string
      /** The tool failed, where an API has a place to say so. */
      readonly isError?: true | undefined
    }

export interface ToolDefinition {
  readonly name: string
  readonly description?: string | undefined
  readonly parameters: JsonSchema
  /** The call keeps to the schema; left out: as the upstream likes. */
  readonly strict?: boolean | undefined
}

/** A chat as asked, in no provider's own format. */
export interface ChatBody {
  readonly messages: readonly ChatMessage[]
  /** Most output tokens the caller wants, reasoning included. */
  readonly maxTokens: number
  /** How many answers, each of `maxTokens` at most; left out: one. */
  readonly choices?: number | undefined
  /** The answer must be JSON of this schema. `strict`: false where it is to be near it only. */
  readonly schema?:
    | {
        readonly name: string
        /** What it is for: models of OpenAI are told. */
        readonly description?: string | undefined
        readonly schema: JsonSchema
        readonly strict?: boolean | undefined
      }
    | undefined
  readonly tools?: readonly ToolDefinition[] | undefined
  /** False: an answer calls one tool at most. */
  readonly parallelToolCalls?: false | undefined
  readonly toolChoice?: 'auto' | 'none' | 'required' | { readonly name: string } | undefined
  readonly temperature?: number | undefined
  readonly topP?: number | undefined
  readonly stop?: readonly string[] | undefined
  readonly seed?: number | undefined
  readonly reasoningEffort?: ReasoningEffort | undefined
  /** Further members of the request under the names that upstreams have for them: for routes that take them. */
  readonly parameters?: Readonly<Record<string, unknown>> | undefined
  /** The same of members that change neither answer nor limits: an upstream that is not known to take one goes without it. */
  readonly hints?: Readonly<Record<string, string>> | undefined
}

/** Texts to be embedded, all in one request. */
export interface EmbedBody {
  readonly input: readonly string[]
  readonly dimensions?: number | undefined
  /** Whose texts they are, for routes that take it. */
  readonly user?: string | undefined
}
