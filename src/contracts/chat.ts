import { z } from 'zod'
import type { JsonSchema } from './agents.ts'

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

export type ChatMessage =
  | { readonly role: 'system'; readonly content: string }
  | { readonly role: 'user'; readonly content: string | readonly (TextPart | ImagePart)[] }
  | {
      readonly role: 'assistant'
      readonly content: string
      readonly toolCalls?: readonly ToolCall[] | undefined
    }
  | { readonly role: 'tool'; readonly toolCallId: string; readonly content: string }

export interface ToolDefinition {
  readonly name: string
  readonly description?: string | undefined
  readonly parameters: JsonSchema
}

/** A chat as asked, in no provider's own format. */
export interface ChatBody {
  readonly messages: readonly ChatMessage[]
  /** Most output tokens the caller wants, reasoning included. */
  readonly maxTokens: number
  /** The answer must be JSON of this schema. */
  readonly schema?: { readonly name: string; readonly schema: JsonSchema } | undefined
  readonly tools?: readonly ToolDefinition[] | undefined
  readonly toolChoice?: 'auto' | 'none' | 'required' | { readonly name: string } | undefined
  readonly temperature?: number | undefined
  readonly topP?: number | undefined
  readonly stop?: readonly string[] | undefined
  readonly seed?: number | undefined
  readonly reasoningEffort?: 'minimal' | 'low' | 'medium' | 'high' | undefined
}

/** Texts to be embedded, all in one request. */
export interface EmbedBody {
  readonly input: readonly string[]
  readonly dimensions?: number | undefined
}

/** Most characters of one text: far beyond any context. */
const MAX_TEXT = 8_000_000

const text = z.string().max(MAX_TEXT)
const toolName = z.string().regex(/^[a-zA-Z0-9_-]{1,64}$/, 'letters, digits, _ and - (at most 64)')
const jsonSchema = z.record(z.string(), z.unknown())

const textPart = z.strictObject({ type: z.literal('text'), text })
const imagePart = z.strictObject({
  type: z.literal('image'),
  url: z
    .string()
    .regex(/^(https:\/\/|data:image\/(png|jpeg|gif|webp);base64,)/, 'an https URL, or a data URL of an image'),
  detail: z.enum(['low', 'high', 'auto']).optional(),
})
const toolCall = z.strictObject({ id: z.string().min(1).max(200), name: toolName, arguments: text })

const chatMessage = z.discriminatedUnion('role', [
  z.strictObject({ role: z.literal('system'), content: text }),
  z.strictObject({
    role: z.literal('user'),
    content: z.union([
      text,
      z
        .array(z.discriminatedUnion('type', [textPart, imagePart]))
        .min(1)
        .max(256),
    ]),
  }),
  z.strictObject({ role: z.literal('assistant'), content: text, toolCalls: z.array(toolCall).max(128).optional() }),
  z.strictObject({ role: z.literal('tool'), toolCallId: z.string().min(1).max(200), content: text }),
])

export const chatBodySchema: z.ZodType<ChatBody> = z.strictObject({
  messages: z.array(chatMessage).min(1).max(4_096),
  maxTokens: z.int().positive(),
  schema: z.strictObject({ name: toolName, schema: jsonSchema }).optional(),
  tools: z
    .array(z.strictObject({ name: toolName, description: text.optional(), parameters: jsonSchema }))
    .max(256)
    .optional(),
  toolChoice: z.union([z.enum(['auto', 'none', 'required']), z.strictObject({ name: toolName })]).optional(),
  temperature: z.number().min(0).max(2).optional(),
  topP: z.number().min(0).max(1).optional(),
  stop: z.array(z.string().min(1).max(200)).max(4).optional(),
  seed: z.int().optional(),
  reasoningEffort: z.enum(['minimal', 'low', 'medium', 'high']).optional(),
})

export const embedBodySchema: z.ZodType<EmbedBody> = z.strictObject({
  input: z.array(text.min(1)).min(1).max(2_048),
  dimensions: z.int().positive().max(16_384).optional(),
})
