import type { ChatBody } from '#contracts/chat.ts'

/** What is known of a prompt without its provider. */
export interface PromptFacts {
  /** Of its messages' text. */
  readonly characters: number
  readonly images: number
}

export function factsOf({ messages }: Pick<ChatBody, 'messages'>): PromptFacts {
  let characters = 0
  let images = 0
  for (const { content } of messages) {
    if (typeof content === 'string') characters += content.length
    else {
      for (const part of content) {
        if (part.type === 'text') characters += part.text.length
        else images += 1
      }
    }
  }
  return { characters, images }
}
