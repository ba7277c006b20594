//! Batches, their numbers, and what is sent again.

use std::time::Duration;

use hive_client::{
    CallError, Client, Fault, PublishError, Publisher, Reason, Target, message,
    wire::{
        Message, PeekMessagesRequest, Problem, PublishBatchRequest, PublishOutcome, PublishRequest,
        PublishStreamRequest, PublishStreamResponse,
    },
};

use crate::peer::{Peer, Producer, within};

fn accepted(message: &Message) -> PublishOutcome {
    PublishOutcome {
        message_id: message.message_id.clone(),
        ..PublishOutcome::default()
    }
}

fn batch_of(frame: PublishStreamRequest) -> (u64, PublishBatchRequest) {
    (frame.batch, frame.publish.unwrap())
}

/// Reads one batch.
async fn read(producer: &mut Producer) -> (u64, PublishBatchRequest) {
    batch_of(producer.next().await.expect("the publisher goes on"))
}

/// Answers a batch with success for every message.
async fn accept(producer: &Producer, batch: u64, publish: &PublishBatchRequest) {
    let outcomes = publish.messages.iter().map(accepted).collect();
    producer
        .send(PublishStreamResponse { batch, outcomes })
        .await;
}

#[tokio::test]
async fn messages_are_numbered_from_one_without_gaps_and_gather_while_batches_are_in_flight() {
    let mut peer = Peer::start().await;
    let client = Client::builder(peer.url.parse().unwrap())
        .namespace("team")
        .build()
        .unwrap();
    let publisher = Publisher::new(&client, Target::group("g"));
    let mut pending = Vec::new();
    pending.push(publisher.enqueue(message("t", "0")).await.unwrap());
    let mut producer = peer.producer().await;
    assert_eq!(producer.namespace, "team");
    for number in 1..100 {
        pending.push(
            publisher
                .enqueue(message("t", number.to_string()))
                .await
                .unwrap(),
        );
    }
    let mut next = 1;
    let mut batches = 0;
    while next <= 100 {
        let (batch, publish) = read(&mut producer).await;
        batches += 1;
        assert_eq!(batch, batches);
        assert_eq!((publish.group.as_str(), publish.stream.as_str()), ("g", ""));
        assert_eq!(publish.producer_id, publisher.producer_id());
        assert_eq!(publish.first_sequence, next);
        next += publish.messages.len() as u64;
        accept(&producer, batch, &publish).await;
    }
    assert!(batches < 50, "{batches} batches for 100 messages");
    for answer in pending {
        assert!(!within("a receipt", answer).await.unwrap().duplicate);
    }
}

#[tokio::test]
async fn after_a_cut_the_unanswered_suffix_is_sent_again_in_order_under_the_same_numbers() {
    let (mut first, mut second) = (Peer::start().await, Peer::start().await);
    let client = Client::new(&format!("{},{}", first.url, second.url)).unwrap();
    let publisher = Publisher::new(&client, Target::stream("s"));
    let mut pending = Vec::new();
    let mut sent = Vec::new();
    pending.push(publisher.enqueue(message("t", "0")).await.unwrap());
    let mut producer = first.producer().await;
    sent.push(read(&mut producer).await);
    for number in 1..4 {
        pending.push(
            publisher
                .enqueue(message("t", number.to_string()))
                .await
                .unwrap(),
        );
        sent.push(read(&mut producer).await);
    }
    accept(&producer, 1, &sent[0].1).await;
    within("the first receipt", pending.remove(0))
        .await
        .unwrap();
    producer.cut().await;

    let mut producer = second.producer().await;
    for (batch, publish) in &sent[1..] {
        let again = read(&mut producer).await;
        assert_eq!(&again, &(*batch, publish.clone()));
        // The first gateway had stored it after all: the server says so.
        let outcomes = publish.messages.iter().map(accepted);
        let outcomes = outcomes
            .map(|it| PublishOutcome {
                duplicate: true,
                ..it
            })
            .collect();
        producer
            .send(PublishStreamResponse {
                batch: *batch,
                outcomes,
            })
            .await;
    }
    for (pending, (_, publish)) in pending.into_iter().zip(&sent[1..]) {
        let receipt = within("a receipt", pending).await.unwrap();
        assert_eq!(receipt.message_id, publish.messages[0].message_id);
        assert!(!receipt.duplicate, "its own first sending is no duplicate");
    }
    let _next = publisher.enqueue(message("t", "4")).await.unwrap();
    assert_eq!(read(&mut producer).await.1.first_sequence, 5);
}

#[tokio::test]
async fn one_message_of_a_batch_may_be_refused_and_the_others_stand() {
    let mut peer = Peer::start().await;
    let client = Client::new(&peer.url).unwrap();
    let publisher = Publisher::new(&client, Target::group("g"));
    let full = Fault::new(Reason::StreamFull, "full").with_retry_after(Duration::from_millis(7));
    let play = async {
        let mut producer = peer.producer().await;
        let mut next = 1;
        while next <= 3 {
            let (batch, publish) = read(&mut producer).await;
            assert_eq!(publish.first_sequence, next);
            next += publish.messages.len() as u64;
            let outcomes = publish.messages.iter().map(|it| match it.payload.as_ref() {
                b"b" => PublishOutcome {
                    error: Some(Problem::from(&full)),
                    ..PublishOutcome::default()
                },
                _ => accepted(it),
            });
            let outcomes = outcomes.collect();
            producer
                .send(PublishStreamResponse { batch, outcomes })
                .await;
        }
        producer
    };
    let publish = publisher.publish_all(["a", "b", "c"].map(|it| message("t", it)));
    let (mut producer, answers) = tokio::join!(play, publish);
    assert!(answers[0].is_ok() && answers[2].is_ok(), "{answers:?}");
    let refused = answers[1].as_ref().unwrap_err();
    assert!(refused.is_retryable());
    assert_eq!(refused.retry_after(), Some(Duration::from_millis(7)));
    // Its number is burnt: the retry has a new one.
    let _again = publisher.enqueue(message("t", "b")).await.unwrap();
    assert_eq!(read(&mut producer).await.1.first_sequence, 4);
}

#[tokio::test]
async fn a_full_window_holds_the_next_publish_back() {
    let mut peer = Peer::start().await;
    let client = Client::new(&peer.url).unwrap();
    let publisher = Publisher::builder(&client, Target::group("g"))
        .window(2)
        .build();
    let _first = publisher.enqueue(message("t", "a")).await.unwrap();
    let mut producer = peer.producer().await;
    let (batch, publish) = read(&mut producer).await;
    let _second = publisher.enqueue(message("t", "b")).await.unwrap();
    let mut third = Box::pin(publisher.enqueue(message("t", "c")));
    let held = tokio::time::timeout(Duration::from_millis(50), &mut third).await;
    assert!(held.is_err(), "the window of two takes a third");
    accept(&producer, batch, &publish).await;
    let _third = within("room in the window", third).await.unwrap();
}

#[tokio::test]
async fn close_waits_for_every_answer_and_takes_no_more() {
    let mut peer = Peer::start().await;
    let client = Client::new(&peer.url).unwrap();
    let publisher = Publisher::new(&client, Target::group("g"));
    let pending = publisher.enqueue(message("t", "a")).await.unwrap();
    let late = publisher.clone();
    let play = async {
        let mut producer = peer.producer().await;
        let (batch, publish) = read(&mut producer).await;
        accept(&producer, batch, &publish).await;
        assert!(producer.next().await.is_none(), "the stream ends");
    };
    let close = async {
        publisher.close().await;
        pending.await.expect("answered before the close ended");
    };
    within("the end", async { tokio::join!(play, close) }).await;
    let refused = late.publish(message("t", "b")).await;
    assert!(matches!(refused, Err(PublishError::Closed)), "{refused:?}");
}

#[tokio::test]
async fn a_stream_that_is_refused_leaves_its_messages_unknown_and_goes_on() {
    let mut peer = Peer::start().await;
    let client = Client::new(&peer.url).unwrap();
    let publisher = Publisher::new(&client, Target::group("absent"));
    let pending = publisher.enqueue(message("t", "a")).await.unwrap();
    let mut producer = peer.producer().await;
    read(&mut producer).await;
    producer.end(Fault::no_group("absent").into()).await;
    let refused = within("the answer", pending).await;
    assert!(
        matches!(refused, Err(PublishError::Unknown(_))),
        "{refused:?}"
    );
    let _next = publisher.enqueue(message("t", "b")).await.unwrap();
    let mut producer = peer.producer().await;
    assert_eq!(read(&mut producer).await.1.first_sequence, 2);
}

#[tokio::test]
async fn a_message_larger_than_a_batch_is_refused_before_it_is_sent() {
    let client = Client::new("http://127.0.0.1:9").unwrap();
    let publisher = Publisher::new(&client, Target::group("g"));
    let refused = publisher.publish(message("t", vec![0; 5 << 20])).await;
    assert!(
        matches!(refused, Err(PublishError::TooLarge { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_unary_call_goes_to_the_next_gateway_when_one_is_not_there() {
    let peer = Peer::start().await;
    let client = Client::new(&format!("http://127.0.0.1:9,{}", peer.url)).unwrap();
    let peeked = client.peek_messages(PeekMessagesRequest::default()).await;
    assert!(peeked.is_ok(), "{peeked:?}");
    assert_eq!(client.gateway().url(), peer.url);
}

#[tokio::test]
async fn a_publish_that_could_happen_twice_is_not_repeated() {
    let peer = Peer::start().await;
    let client = Client::new(&peer.url).unwrap();
    let refused = client.publish(PublishRequest::default()).await.unwrap_err();
    assert!(matches!(refused, CallError::Refused(_)), "{refused:?}");
}

#[tokio::test]
async fn a_publish_with_a_key_is_repeated_until_the_deadline() {
    let peer = Peer::start().await;
    let endpoints = peer.url.parse().unwrap();
    let deadline = Duration::from_millis(300);
    let client = Client::builder(endpoints)
        .call_deadline(deadline)
        .build()
        .unwrap();
    let keyed = Message {
        idempotency_key: "k".to_owned(),
        ..Message::default()
    };
    let request = PublishRequest {
        message: Some(keyed),
        ..PublishRequest::default()
    };
    let refused = client.publish(request).await.unwrap_err();
    assert!(
        matches!(refused, CallError::Unreachable { .. }),
        "{refused:?}"
    );
}
