//! The second program of README.

use std::env;
use std::error::Error;
use std::sync::Arc;

use shardkeeper::store::FileStore;
use shardkeeper::{Intents, Shardkeeper};
use twilight_http::Client;
use twilight_model::gateway::payload::incoming::{InteractionCreate, MessageCreate};
use twilight_model::http::interaction::{
    InteractionResponse, InteractionResponseData, InteractionResponseType,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();

    let token = env::var("DISCORD_TOKEN").map_err(|_| "DISCORD_TOKEN is not set to the bot's token")?;
    let intents = Intents::GUILDS | Intents::GUILD_MESSAGES | Intents::MESSAGE_CONTENT;
    let mut http = Client::builder().token(token.clone());
    // The next run resumes the sessions in this file: a restart costs no Identify and loses no event.
    let mut bot = Shardkeeper::builder(token, intents).session_store(Arc::new(FileStore::open("sessions")?));
    if let Ok(address) = env::var("DISCORD_SIM") {
        bot = bot.api_url(format!("http://{address}/api/v10"));
        http = http.proxy(address, true).ratelimiter(None);
    }
    let http = http.build();

    let mut messages = bot.subscribe_to::<MessageCreate>();
    let mut interactions = bot.subscribe_to::<InteractionCreate>();
    let bot = bot.start().await?;

    // Ctrl-C ends the bot. The loop below reads on until then, so that no event is left over.
    let ending = bot.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            let _ = ending.detach().await;
        }
    });
    loop {
        tokio::select! {
            Some(message) = messages.next() => match message {
                Ok(message) => println!("{}: {}", message.author.name, message.content),
                Err(error) => eprintln!("{error}"),
            },
            Some(interaction) = interactions.next() => match interaction {
                Ok(interaction) => answer(&http, &interaction).await,
                Err(error) => eprintln!("{error}"),
            },
            else => break,
        }
    }
    Ok(bot.wait().await?)
}

async fn answer(http: &Client, interaction: &InteractionCreate) {
    let content = Some("pong".to_owned());
    let response = InteractionResponse {
        kind: InteractionResponseType::ChannelMessageWithSource,
        data: Some(InteractionResponseData { content, ..InteractionResponseData::default() }),
    };
    let client = http.interaction(interaction.application_id);
    match client.create_response(interaction.id, &interaction.token, &response).await {
        Ok(_) => println!("answered an interaction"),
        Err(error) => eprintln!("could not answer an interaction: {error}"),
    }
}
